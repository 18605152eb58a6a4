"""Replays what is kept of a session from the oldest checkpoint on, and compares; changes nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backwire_server.sessions.budget import Budget
from backwire_server.sessions.content import BOUNDLESS, recovered
from backwire_server.sessions.errors import SessionQuarantined
from backwire_server.sessions.imaging import state_of
from backwire_server.sessions.limits import Limits
from backwire_server.storage.checkpointer import Checkpointer
from backwire_server.storage.disk import Usage
from backwire_server.storage.lock import SCRATCH, SESSIONS
from backwire_server.storage.segment import first_number
from backwire_server.storage.session_files import FileSession, Place


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a session is that is in order: where it stands, its digest, and what was replayed and compared for that."""

    step: int
    digest: str
    mutations: int
    checkpoints: int


def session_ids(directory: Path) -> list[str]:
    """Returns the sessions in a data directory, sorted."""
    return sorted(name for name in os.listdir(directory / SESSIONS) if not name.startswith("."))


def verify_session(directory: Path, session_id: str, limits: Limits) -> Verdict:
    """Verifies a session of a data directory that no server uses: all files, and the bits that a replay leads to.

    The digest of the state must be that of every later checkpoint when the replay comes there. Raises
    SessionQuarantined for a session that is not in order, StorageFailed, and OSError.
    """
    with _copy(directory, session_id) as root:
        checkpointer = Checkpointer()
        try:
            return _verdict(FileSession.open(Place(root, limits, Usage(), checkpointer), session_id), limits)
        except SessionQuarantined as error:
            real = str(error).replace(str(root), str(directory / SESSIONS)).replace(str(root.parent), str(directory))
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
    return Verdict(state.step, state.digest(), done, checkpoints)


@contextmanager
def _copy(directory: Path, session_id: str) -> Iterator[Path]:
    """Gives a directory with a copy of the session: files are linked, but for the ones that opening may change."""
    source = directory / SESSIONS / session_id
    with tempfile.TemporaryDirectory(dir=directory / SCRATCH, prefix="verify-") as name:
        copy = Path(name) / session_id
        copy.mkdir()
        segments = [each for each in sorted(os.listdir(source)) if first_number(each) is not None]
        for each in os.listdir(source):
            if each in segments[-1:]:
                shutil.copyfile(source / each, copy / each)
            else:
                os.link(source / each, copy / each)
        yield Path(name)
