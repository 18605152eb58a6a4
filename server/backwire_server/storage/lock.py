"""Keeps a data directory to one server."""

import fcntl
import os
import shutil
import time
from pathlib import Path
from types import TracebackType

from backwire_server.storage.disk import lasting_directory

LOCK = "LOCK"
SESSIONS = "sessions"
SHARED = "shared"
DELETED = "deleted"
LOST = "lost"
SCRATCH = "scratch"
REPLICAS = "replicas"

PATIENCE_SECONDS = 5.0
POLL_SECONDS = 0.05


class DirectoryInUse(OSError):
    """Another server has the data directory."""


class DirectoryLock:
    """A data directory that no other server may use until `release`, or until this process ends.

    It is made where there is none, for this user alone, and files that nobody needs after a restart are removed.
    Waits up to `patience` seconds for a server that is about to end, such as the workers of one that was killed. Raises
    DirectoryInUse, and OSError when it cannot be made. `descriptor` may be passed on to processes that use the
    directory too: then it is free when the last of them has ended.

    With `shared`, other servers may use it that share it, too. Sessions lie elsewhere then, so one that has some of the
    other kind is refused.
    """

    def __init__(self, directory: str | Path, patience: float = PATIENCE_SECONDS, *, shared: bool = False) -> None:
        root = Path(directory)
        self._shared = shared
        try:
            lasting_directory(root, 0o700)
            self.descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OSError(
                f"the data directory {root} cannot be used: {error.strerror}; give one that this user can write to, "
                "such as a volume"
            ) from error
        try:
            self._take(root, patience)
            self._check_kind(root)
            if not shared:
                shutil.rmtree(root / SCRATCH, ignore_errors=True)
            for name in (SHARED if shared else SESSIONS, DELETED, SCRATCH):
                lasting_directory(root / name, 0o700)
        except BaseException:
            os.close(self.descriptor)
            raise

    def release(self) -> None:
        """Lets other servers have the directory."""
        os.close(self.descriptor)

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _check_kind(self, root: Path) -> None:
        others = root / (SESSIONS if self._shared else SHARED)
        if others.is_dir() and any(others.iterdir()):
            made, given = ("without", "with") if self._shared else ("with", "without")
            raise OSError(
                f"the data directory {root} has sessions of a server {made} --shared, and this one is {given}; start "
                "it as that one was, or give it another --data-dir and move sessions by export and import"
            )

    def _take(self, root: Path, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not self._taken():
            if time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            holder = os.pread(self.descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DirectoryInUse(
                f"the data directory {root} is in use by another server (process {holder}); end that one, or give "
                "another directory"
            )
        if self._shared:
            return
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
