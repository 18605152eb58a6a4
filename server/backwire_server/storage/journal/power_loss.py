"""Tells what a loss of power tore from damage, and goes back before it. See docs/storage.md."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.errors import SessionQuarantined
from backwire_server.sessions.keeping.durable import Loss
from backwire_server.storage.disk import Usage, lasting_directory, sync_directory
from backwire_server.storage.journal.boots import Boots
from backwire_server.storage.journal.replay import Part
from backwire_server.storage.journal.segment import MAGIC, first_number
from backwire_server.storage.journal.segment_scan import SECTOR_BYTES, header_of, whole_part
from backwire_server.storage.journal.segments import Segments
from backwire_server.storage.manifest import DEFINITION, MANIFEST, SUFFIX, Manifest, read_manifest

_LOG = logging.getLogger("backwire.storage")


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the records of a journal follow one another without a gap.

    Attributes:
        last: The number of the last of them.
        at: The segment that has it, or would have the next.
        after: The segments behind that.
        boot: The boot under which that segment was written, by what is known of it or of the one before.
    """

    last: int
    at: Part
    after: Sequence[Part]
    boot: str

    @property
    def is_end(self) -> bool:
        """Whether there is nothing else."""
        return not (self.after or self.at.scan.torn or self.at.scan.header is None)

    @property
    def is_lost(self) -> bool:
        """Whether what follows is missing, or was never written to the disk, and is no other than what was."""
        return not self.at.scan.torn or self.at.scan.unwritten


def go_back(segments: Segments, record: int, assured: int) -> Loss | None:
    """Cuts from a journal what a loss of power tore after a record, and all behind it; returns what is lost.

    Returns None, and changes nothing, where it cannot be told that this was it: when what is torn was written under
    this boot, or one that is not known; when it is on the disk, or was, as records up to `assured` were; or when
    somebody has read it as whole under a later boot, and begun a segment after it. Raises SessionQuarantined, OSError.
    """
    found = reach(segments, record)
    if found is None or found.is_end or found.last < assured:
        return None
    if not (found.is_lost and segments.boots.ended(found.boot)):
        return None
    if any(part.scan.header is not None and part.boot != found.boot for part in found.after):
        return None
    torn = found.at.scan.torn
    nbytes = torn + sum(part.scan.end + part.scan.torn for part in found.after)
    known = [found.last + (torn > 0), *(part.first - 1 + len(part.spans) for part in found.after)]
    segments.cut(found.at.first, found.at.scan.end)
    return Loss(found.last, max(known) - found.last, nbytes)


def reach(segments: Segments, record: int, until: int | None = None) -> Reach | None:
    """Returns how far the records after one reach, with `until` in segments up to that one's; None where none has them.

    Raises SessionQuarantined for a segment that is whole and another than its name says, and OSError.
    """
    begin = max((first for first in segments.firsts if first <= record + 1), default=None)
    if begin is None:
        return None
    firsts = [first for first in segments.firsts if first >= begin and (until is None or first <= until)]
    parts = [Part(segments.path(first), first, whole_part(segments.path(first))) for first in firsts]
    boot = ""
    for number, part in enumerate(parts):
        boot = segments.boots.of(part.scan.header, boot)
        found = Reach(part.first - 1 + len(part.spans), part, parts[number + 1 :], boot)
        whole = not part.scan.torn and part.scan.header is not None
        if not (whole and found.after and found.after[0].first == found.last + 1):
            break
    return found


def set_aside(directory: Path, lost: Path) -> bool:
    """Moves what is left of a session that is gone to where nobody looks for one; logs that, and tells if it could."""
    number, path = 1, lost / directory.name
    while path.exists():
        number += 1
        path = lost / f"{directory.name}~{number}"
    try:
        lasting_directory(lost, 0o700)
        os.rename(directory, path)
        sync_directory(lost)
        sync_directory(directory.parent)
    except OSError as error:
        _LOG.warning(
            "what a loss of power left of session %s could not be moved to %s: %s", directory.name, path, error
        )
        return False
    _LOG.warning(
        "session %s is gone: it was made at durability journal shortly before a loss of power, which took what it "
        "began with; create it again. What is left of it is in %s, and may be removed",
        directory.name,
        path,
    )
    return True


def is_gone(directory: Path, boot: str) -> bool:
    """Tells whether a loss of power took what a new session began with, before this boot.

    Nobody can make it again then. It has made no checkpoint, before which that is flushed, and has not gone on under
    another boot since. Of what cannot be read that is not said.
    """
    try:
        return _is_gone(directory, boot)
    except OSError:
        return False


def _is_gone(directory: Path, boot: str) -> bool:
    names = os.listdir(directory)
    try:
        headers = {name: header_of(directory / name) for name in names if first_number(name) is not None}
    except SessionQuarantined:
        return False
    own = {header.boot for header in headers.values() if header is not None and header.session_id == directory.name}
    try:
        manifest = read_manifest(directory)
    except SessionQuarantined:
        if not boot or any(name.endswith(SUFFIX) for name in names):
            return False
        if own:
            return len(own) == 1 and Boots(boot).ended(*own) and _is_unwritten(directory / MANIFEST)
        headless = [directory / name for name, header in headers.items() if header is None]
        return _is_void(directory / MANIFEST) and all(_is_void(path, len(MAGIC)) for path in headless)
    if not manifest.is_unflushed or not Boots(boot).ended(manifest.boot) or own - {manifest.boot}:
        return False
    if not _is_defined(directory, manifest):
        return _is_unwritten(directory / DEFINITION)
    return not (headers and _is_begun(directory, manifest))


def _is_defined(directory: Path, manifest: Manifest) -> bool:
    try:
        data = (directory / DEFINITION).read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(data).hexdigest() == manifest.definition_sha256


def _is_begun(directory: Path, manifest: Manifest) -> bool:
    """Tells whether the record that says that the session has branched, if it has, and all before it are not lost."""
    if not manifest.begun:
        return True
    record = manifest.automatic[-1].record if manifest.automatic else 0
    found = reach(Segments(directory, manifest.session_id, manifest.ancestors, Usage()), record, manifest.begun)
    return found is not None and (found.last >= manifest.begun or not found.is_lost)


def _is_unwritten(path: Path) -> bool:
    """Tells whether a file is missing, or may have been written in part: it has zeros, or ends where a sector does."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return True
    return len(data) % SECTOR_BYTES == 0 or bytes(8) in data or data.endswith(b"\0")


def _is_void(path: Path, nbytes: int = -1) -> bool:
    """Tells whether a file begins with so many zeros, or has no others, as one is that was made and not written to."""
    try:
        with open(path, "rb") as file:
            return not any(file.read(nbytes))
    except FileNotFoundError:
        return True
