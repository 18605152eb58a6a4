"""Replays what is kept of a session from the oldest checkpoint on, and compares; changes nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.budget import Budget
from backwire_server.sessions.errors import SessionNotFound, SessionQuarantined, StorageFailed
from backwire_server.sessions.keeping.content import BOUNDLESS, recovered
from backwire_server.sessions.keeping.durable import Loss
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.training.imaging import state_of
from backwire_server.storage import life
from backwire_server.storage.checkpoints.checkpointer import Checkpointer
from backwire_server.storage.disk import Usage
from backwire_server.storage.journal.segment import first_number
from backwire_server.storage.lock import SCRATCH, SESSIONS, SHARED
from backwire_server.storage.manifest import MANIFEST
from backwire_server.storage.place import Place
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.sharing.marks import mark_of

ATTEMPTS = 16
"""How often a session is copied that changes meanwhile."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a session is that is in order: where it stands, its digest, and what was replayed and compared for that.

    `loss` tells what a loss of power took that came after.
    """

    step: int
    digest: str
    mutations: int
    checkpoints: int
    loss: Loss | None = None


def is_shared(directory: Path) -> bool:
    """Tells whether a data directory is one that servers share, who may use it while it is verified."""
    return (directory / SHARED).is_dir()


def session_ids(directory: Path) -> list[str]:
    """Returns the sessions in a data directory, sorted, but for those that are being made."""
    root = directory / (SHARED if is_shared(directory) else SESSIONS)
    return sorted(name for name in os.listdir(root) if not name.startswith(".") and _is_made(directory, name))


def verify_session(directory: Path, session_id: str, limits: Limits) -> Verdict:
    """Verifies a session of a data directory: all files, and the bits that a replay leads to.

    No server may use a directory that is not shared. Of a session that is in use, what there is at some moment is
    verified. The digest of the state must be that of every later checkpoint when the replay comes there. Raises
    SessionQuarantined for a session that is not in order, StorageFailed, and OSError.
    """
    with _copy(directory, session_id) as root:
        checkpointer = Checkpointer()
        boot = "" if is_shared(directory) else life.this_machine()
        place = Place(root, limits, Usage(), checkpointer, boot=boot)
        try:
            return _verdict(FileSession.open(place, session_id), limits)
        except SessionQuarantined as error:
            there = str(_source(directory, session_id).parent)
            real = str(error).replace(str(root), there).replace(str(root.parent), str(directory))
            raise SessionQuarantined(real) from error
        finally:
            checkpointer.close()


def _verdict(files: FileSession, limits: Limits) -> Verdict:
    checkpoints = files.verify()
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done = number

    recovery = files.recover_from_oldest()
    content = recovered(files.spec(), recovery, limits, Budget(BOUNDLESS).account(), progress=count)
    files.close()
    state = state_of(content.trainer)
    return Verdict(state.step, state.digest(), done, checkpoints, recovery.loss)


@contextmanager
def _copy(directory: Path, session_id: str) -> Iterator[Path]:
    """Gives a directory with a copy of the session: files are linked, but for the ones that opening may change."""
    with tempfile.TemporaryDirectory(dir=directory / SCRATCH, prefix="verify-") as name:
        copy = Path(name) / session_id
        for _ in range(ATTEMPTS):
            copy.mkdir()
            if _copied(_source(directory, session_id), copy):
                break
            shutil.rmtree(copy)
        else:
            raise StorageFailed(
                f"session {session_id!r} is not there, or changes too fast to be copied; verify it again"
            )
        yield Path(name)


def _copied(source: Path, copy: Path) -> bool:
    """Copies a session, and tells whether all is of one moment: files go only once another manifest is there."""
    if not (source / MANIFEST).exists() and source.is_dir():  # it has none, as will be told of the copy
        return True
    try:
        os.link(source / MANIFEST, copy / MANIFEST)
        names = sorted(each for each in os.listdir(source) if each != MANIFEST)
        segments = [each for each in names if first_number(each) is not None]
        for each in names:
            if each in segments[-1:]:
                shutil.copyfile(source / each, copy / each)
            else:
                os.link(source / each, copy / each)
        return os.path.samefile(source / MANIFEST, copy / MANIFEST)
    except FileNotFoundError:
        return False


def _is_made(directory: Path, session_id: str) -> bool:
    try:
        return _source(directory, session_id).is_dir()
    except SessionNotFound:  # it was deleted meanwhile
        return False


def _source(directory: Path, session_id: str) -> Path:
    """Returns the directory with the files of a session; raises SessionNotFound."""
    if not is_shared(directory):
        return directory / SESSIONS / session_id
    return directory / SHARED / session_id / str(mark_of(directory / SHARED, session_id)) / session_id
