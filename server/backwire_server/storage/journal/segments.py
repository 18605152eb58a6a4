"""The segments of a session's journal on the disk: which there are, and what they have."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import storage_pb2
from backwire_server.sessions.errors import StorageFailed
from backwire_server.storage import failpoints
from backwire_server.storage.disk import (
    Usage,
    damaged,
    failed,
    storage_errors,
    sync_directory,
    sync_file,
    write_file,
)
from backwire_server.storage.journal.boots import UNKNOWN, Boots
from backwire_server.storage.journal.environment import JAX, differences, environment, recorded
from backwire_server.storage.journal.replay import Part
from backwire_server.storage.journal.segment import FORMAT, Segment, beginning, file_name, first_number, renew
from backwire_server.storage.journal.segment_scan import Scan, scan
from backwire_server.storage.manifest import DEFINITION

_LOG = logging.getLogger("backwire.storage")


class Segments:
    """Segments by the number of the record that each begins with. For one thread at a time, but for `prune`.

    Attributes:
        directory: Where they are.
        firsts: These numbers, in order.
        boots: The boot under which others are begun, and that of the manifest.
        doubted: Those of which a flush may have failed, so that the next one tells nothing; see `renew`.
    """

    def __init__(
        self, directory: Path, session_id: str, ancestors: Sequence[str], usage: Usage, boots: Boots = UNKNOWN
    ) -> None:
        """Lists them; raises OSError when it cannot."""
        self.directory = directory
        self.boots = boots
        self._session_id = session_id
        self._owners = {session_id, *ancestors}
        self._usage = usage
        self._mutex = threading.Lock()
        self.doubted: set[int] = set()
        self.firsts = sorted(filter(None, map(first_number, os.listdir(directory))))

    def add(self, first: int) -> None:
        """Notes that there is another, the last."""
        with self._mutex:
            self.firsts = [*self.firsts, first]

    def path(self, first: int) -> Path:
        """Returns where the one is that begins with the record of this number."""
        return self.directory / file_name(first)

    def scan(self, first: int) -> Scan:
        """Reads one and logs what it was written under that is not so now; raises SessionQuarantined, StorageFailed."""
        path = self.path(first)
        with storage_errors(f"{path} could not be read"):
            try:
                found = scan(path, last=first == self.firsts[-1])
            except FileNotFoundError:
                raise damaged(path, "the file is missing") from None
        if found.header is None:
            return found
        if found.header.session_id not in self._owners:
            raise damaged(path, f"it belongs to another session, {found.header.session_id!r}", 0)
        then = dict(found.header.environment)
        if found.spans and JAX in then and not self._computes_by_jax():
            del then[JAX]  # other sessions of the process did
        if found.spans and (changed := differences(then, environment(devices=JAX in then))):
            _LOG.warning("%s was written under conditions in which bits may differ: %s", path, changed)
        return found

    def after(self, record: int, scan_last: Callable[[int], Scan], *, within: bool) -> Iterator[Part]:
        """Reads what there is after a record, with which a segment must have ended but for `within`, one by one.

        `scan_last` reads the last segment. Raises SessionQuarantined, StorageFailed.
        """
        begin = max((each for each in self.firsts if each <= record + 1), default=0) if within else record + 1
        if begin not in self.firsts:
            raise damaged(self.path(record + 1), "the file is missing")
        expected = begin
        for first in [each for each in self.firsts if each >= begin]:
            if first != expected:
                gap = f"the journal has a gap: the record before it is {expected - 1}"
                raise damaged(self.path(first), gap, 0)
            found = self.scan(first) if first != self.firsts[-1] else scan_last(first)
            known = max(0, record + 1 - first)
            if known > len(found.spans):
                raise damaged(self.path(first), f"it lacks records up to {record}, which a checkpoint has", 0)
            yield Part(self.path(first), first, found, known)
            expected += len(found.spans)

    def _computes_by_jax(self) -> bool:
        """Tells whether the session does; one that does not can be made again where there is none."""
        try:
            data = (self.directory / DEFINITION).read_bytes()
            return pb.CreateSessionRequest.FromString(data).executor == pb.EXECUTOR_JAX
        except (OSError, DecodeError):
            return True

    def begin(self, first: int, sync: bool, fail: Callable[[StorageFailed], None]) -> Segment:
        """Makes one as `make` does; none is left behind when it cannot be made, or `fail` is told that one is."""
        making = self._usage.tally.flushing if sync else self._usage.tally.writing
        making.begin(0)
        try:
            return self.make(first, sync)
        except BaseException:
            try:
                self.path(first).unlink(missing_ok=True)
            except OSError as error:
                fail(failed("an unfinished segment of the journal could not be removed", error))
            raise
        finally:
            making.end()

    def make(self, first: int, sync: bool) -> Segment:
        """Makes one with its header, which begins with the record of this number; with `sync` it is on the disk."""
        header = storage_pb2.JournalHeader(
            format=FORMAT, session_id=self._session_id, first_number=first, environment=recorded(), boot=self.boots.now
        )
        header.create_time.FromNanoseconds(time.time_ns())
        segment = Segment(self.path(first), 0)
        try:
            segment.begin(header)
            if sync:
                segment.flush()
                sync_directory(self.directory)
        except BaseException:
            segment.close()
            raise
        self._usage.take(self._session_id, segment.end, checked=False)
        self._usage.tally.began_segment()
        return segment

    def secure(self, first: int, end: int | None) -> None:
        """Returns when one is on the disk, as far as to `end` where more is being appended; raises OSError.

        For one thread at a time, whatever the others do.
        """
        path, doubted = self.path(first), first in self.doubted
        self.doubted.add(first)
        if doubted:
            renew(path, end)
        else:
            sync_file(path)
        self.doubted.discard(first)

    def bytes_after(self, record: int) -> int:
        """Returns the size of the segments that begin after the record of this number, 0 where it cannot be read."""
        try:
            return sum(self.path(first).stat().st_size for first in self.firsts if first > record)
        except OSError:
            return 0

    def bytes_since(self, record: int, last: int) -> int:
        """Returns about the bytes of the records after this one up to the last, by their share of their segments."""
        begin = max((each for each in self.firsts if each <= record + 1), default=record + 1)
        records = last - begin + 1
        return self.bytes_after(begin - 1) * (last - record) // records if records > 0 else 0

    def complete(self) -> list[Path]:
        """Returns the segments that nothing will be appended to, oldest first."""
        return [self.path(first) for first in self.firsts[:-1]]

    def cut(self, first: int, end: int) -> None:
        """Removes what is behind a place of one, and all segments after it, for good; raises OSError.

        Others may share the files, so that what is kept of it is written anew: it may be appended to, or begun again.
        """
        with self._mutex:
            while self.firsts[-1] > first:
                failpoints.hit("mend.segment")
                self._remove(self.firsts[-1])
                self.firsts = self.firsts[:-1]
        path = self.path(first)
        found = path.stat()
        removed = found.st_size - end
        if removed or found.st_nlink > 1:
            write_file(path, beginning(path, end), "mend", sync=True)
        sync_directory(self.directory)
        self._usage.give(self._session_id, removed)

    def prune(self, record: int) -> None:
        """Removes the segments that have no record after the one of this number; raises OSError."""
        with self._mutex:
            while len(self.firsts) > 1 and self.firsts[1] <= record + 1:
                failpoints.hit("prune.segment")
                self._remove(self.firsts[0])
                self.firsts = self.firsts[1:]

    def _remove(self, first: int) -> None:
        path = self.path(first)
        nbytes = path.stat().st_size
        path.unlink()
        self._usage.give(self._session_id, nbytes)
