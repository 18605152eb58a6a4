"""All sessions in a data directory. See docs/storage.md."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

from backwire_server.sessions.errors import SessionError, SessionNotFound, SessionQuarantined
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.keeping.vault import Entry
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import Check, unchecked
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.state import Image
from backwire_server.storage import failpoints, life
from backwire_server.storage.checkpoints.checkpointer import Checkpointer
from backwire_server.storage.checkpoints.copies import Copies
from backwire_server.storage.checkpoints.pacing import DUE_BYTES
from backwire_server.storage.deletions import Deletions
from backwire_server.storage.disk import (
    GONE,
    UNFINISHED,
    Usage,
    lasting_directory,
    new_directory,
    size_of,
    storage_errors,
    sync_directory,
)
from backwire_server.storage.journal.power_loss import is_gone, set_aside
from backwire_server.storage.lock import DELETED, LOST, SCRATCH, SESSIONS
from backwire_server.storage.making import new_manifest
from backwire_server.storage.place import Place
from backwire_server.storage.session_files import FileSession

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._~-]*", re.ASCII)


def is_id(name: str) -> bool:
    """Tells whether a session may have this id, and so the directory of one."""
    return _ID.fullmatch(name) is not None


def everything(session_id: str) -> bool:
    """Says of every session that it is this process's own."""
    return bool(session_id)


class FileVault:
    """Implements `sessions.keeping.vault.Vault`: see there for what each method does.

    Processes may share a directory when each session is owned by one of them, and another `DirectoryLock` keeps other
    servers away.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        default: Durability,
        limits: Limits,
        max_disk_bytes: int | None = None,
        owns: Callable[[str], bool] = everything,
        checkpoint_bytes: int = DUE_BYTES,
        checkpoint_url: str | None = None,
    ) -> None:
        """Removes what an interruption left of the sessions that are owned; raises StorageFailed.

        With a URL, checkpoints are copied there, and where no session is, those are made again of which there are
        copies; raises OSError when that cannot be.
        """
        root = Path(directory)
        self.default = default
        self.scratch = str(root / SCRATCH)
        self._owns = owns
        self._mutex = threading.Lock()
        self._usage = Usage(max_disk_bytes)
        self._copies = None if checkpoint_url is None else Copies(checkpoint_url, self.scratch)
        shared = (self._usage, Checkpointer(), checkpoint_bytes, self._copies)
        self._place = Place(root / SESSIONS, limits, *shared, boot=life.this_machine())
        with storage_errors(f"the data directory {root} cannot be used"):
            for name in (SESSIONS, DELETED, SCRATCH):
                lasting_directory(root / name, 0o700)
            self._deletions = Deletions(root / DELETED, owns)
            self._finish()
        if self._copies is not None and not self.names():
            place = partial(new_directory, self._place.root, sync=True)
            self._copies.restore(lambda name: is_id(name) and owns(name), place)
        with storage_errors(f"the data directory {root} cannot be used"):
            if max_disk_bytes is not None:
                for session_id in self._session_ids():
                    self._usage.take(session_id, size_of(self._directory(session_id)), checked=False)

    @property
    def shared(self) -> bool:
        """Whether other servers use the directory: none does."""
        return False

    @property
    def usage(self) -> Usage:
        """The bytes of all sessions, and what has been written of them."""
        return self._usage

    @property
    def silence(self) -> float:
        """For how many seconds the directory has not answered, 0 while it does or nothing is asked of it."""
        return self._usage.tally.silence

    def entries(self) -> list[Entry]:
        """Returns all sessions, oldest first; only their manifests are read. Those go that a loss of power took."""
        with storage_errors("the sessions could not be listed"):
            found = map(self._entry, self._session_ids())
            there = [entry for entry in found if entry is not None]
        return sorted(there, key=lambda each: each.created)

    def names(self) -> list[str]:
        """Returns the ids of all sessions that are owned."""
        with storage_errors("the sessions could not be listed"):
            return self._session_ids()

    def entry(self, session_id: str) -> Entry | None:
        """Returns a session that is owned; None when there is none."""
        found = is_id(session_id) and self._owns(session_id) and self._directory(session_id).is_dir()
        return self._entry(session_id) if found else None

    @property
    def secret(self) -> bytes:
        """Empty: ids are drawn."""
        return b""

    def owner(self, session_id: str) -> str:  # noqa: ARG002
        """Returns an empty text: there is no other server."""
        return ""

    def deletions(self) -> list[tuple[str, RequestKey]]:
        """Returns which sessions were deleted lately, and by which request, oldest first."""
        with self._mutex:
            return self._deletions.all()

    def create(
        self,
        session_id: str,
        spec: SessionSpec,
        durability: Durability,
        key: RequestKey | None = None,
        image: Image | None = None,
        check: Check = unchecked,  # noqa: ARG002
    ) -> FileSession:
        """Returns the files of a new session, which begins with the image if there is one."""
        with image or nullcontext():
            manifest = new_manifest(session_id, durability, key, spec.definition, self._place.boot)
            return FileSession.create(self._place, manifest, spec.definition, image)

    def open(self, session_id: str, check: Check = unchecked) -> FileSession:  # noqa: ARG002
        """Returns the files of a session, which nobody else has to let go of; raises SessionNotFound for none."""
        self.check(session_id)
        return FileSession.open(self._place, session_id)

    def look(self, session_id: str, read: Callable[[FileSession], T]) -> T:
        """Returns what `read` makes of the files of a session."""
        with closing(self.open(session_id)) as files:
            return read(files)

    def check(self, session_id: str) -> None:
        """Raises SessionNotFound for a session that is not there."""
        if not (is_id(session_id) and os.path.isdir(f"{self._place.root}/{session_id}")):
            raise SessionNotFound(
                f"there is no session {session_id[:64]!r} on disk; create a new one", field="session_id"
            )

    def delete(self, session_id: str, key: RequestKey | None = None, check: Check = unchecked) -> None:  # noqa: ARG002
        """Removes all files of a session; raises StorageFailed, after which it may be deleted again, or go on."""
        with storage_errors("the session could not be removed from the disk"):
            try:
                if key is not None:
                    with self._mutex:
                        self._deletions.add(session_id, key)
                self._remove(session_id)
            except BaseException:
                if self._directory(session_id).exists():
                    with self._mutex:
                        self._deletions.forget(session_id)
                raise
        if self._copies is not None:
            self._copies.forget(session_id)

    def close(self) -> None:
        """Returns when all is written, and copied."""
        self._place.checkpointer.close()
        if self._copies is not None:
            self._copies.close()

    def _directory(self, session_id: str) -> Path:
        return self._place.root / session_id

    def _session_ids(self) -> list[str]:
        names = sorted(os.listdir(self._place.root))
        return [name for name in names if is_id(name) and self._owns(name)]

    def _entry(self, session_id: str) -> Entry | None:
        """Returns a session, or None where a loss of power has left nothing to make it of, which is set aside."""
        directory = self._directory(session_id)
        try:
            files = FileSession.open(self._place, session_id)
            found, doubtful = files.entry, files.doubtful
        except SessionError as error:
            found = Entry(session_id, directory.stat().st_mtime, None, True, self.default)
            doubtful = isinstance(error, SessionQuarantined)
        gone = doubtful and is_gone(directory, self._place.boot)
        if not (gone and set_aside(directory, self._place.root.parent / LOST)):
            return found
        self._usage.tally.lost_power()
        self._usage.forget(session_id)
        return None

    def _remove(self, session_id: str) -> None:
        """Removes the directory of a session, if there is one; it is gone when it has another name."""
        gone = self._place.root / f"{GONE}{session_id}"
        if self._directory(session_id).exists():
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(self._directory(session_id), gone)
            sync_directory(self._place.root)
        failpoints.hit("delete.renamed")
        shutil.rmtree(gone, ignore_errors=True)
        failpoints.hit("delete.removed")
        self._usage.forget(session_id)

    def _finish(self) -> None:
        """Removes sessions that were being made or deleted when the server ended."""
        for name in self._leftovers():
            shutil.rmtree(self._place.root / name, ignore_errors=True)
        for session_id, _ in self._deletions.all():
            if self._directory(session_id).exists():
                self._remove(session_id)

    def _leftovers(self) -> Iterator[str]:
        for name in os.listdir(self._place.root):
            for prefix in (UNFINISHED, GONE):
                if name.startswith(prefix) and self._owns(name.removeprefix(prefix)):
                    yield name
