"""Writes files so that they are there wholly or not at all, and counts their bytes."""

import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from backwire_api.tensors import Bytes, buffer
from backwire_server.sessions.errors import DiskQuotaExceeded, SessionQuarantined, StorageFailed
from backwire_server.storage import failpoints
from backwire_server.storage.tally import Tally

TEMPORARY = ".tmp"
"""How the names of files end that are being written."""

UNFINISHED, GONE = ".new-", ".gone-"
"""How the names of directories begin that are being made, and that are being removed."""

MOST_PIECES = 512  # in one system call; the kernel takes 1,024

RETRY_SECONDS = 1.0


def damaged(path: Path, what: str, offset: int | None = None) -> SessionQuarantined:
    """Returns the error that says what is wrong with a file of a session, and at which byte."""
    place = f"{path}" if offset is None else f"{path}, byte {offset}"
    folder = path if path.is_dir() else path.parent
    verify = f"`backwire verify {folder.parent.parent} {folder.name}`"
    return SessionQuarantined(
        f"{place}: {what}; see what {verify} finds, restore the session's directory from a copy, or delete the session"
    )


def failed(what: str, error: OSError) -> StorageFailed:
    """Returns the error that says which work the disk did not do."""
    return StorageFailed(
        f"{what}: {error.strerror or error}; make room on the server's disk or repair it, then send the call again",
        retry_after=RETRY_SECONDS,
    )


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns what goes wrong with the disk into StorageFailed; `what` says which work was not done."""
    try:
        yield
    except OSError as error:
        raise failed(what, error) from error


def write_all(descriptor: int, pieces: Sequence[Bytes], offset: int) -> int:
    """Writes all pieces one after another from a place of a file on, and returns where they end."""
    for batch in _batches(pieces):
        rest = [memoryview(buffer(piece)) for piece in batch]
        while rest:
            written = os.pwritev(descriptor, rest, offset)
            offset += written
            rest = _after(rest, written)
    return offset


def sync_file(path: Path) -> None:
    """Returns when all that is in a file is on the disk, whoever wrote it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Returns when the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lasting_directory(path: Path, mode: int = 0o777) -> None:
    """Makes a directory, and those above it, unless they are there; they are there after a loss of power, too.

    That is not seen to in one that may be written to and not read, which cannot be opened.
    """
    if not path.is_dir():
        lasting_directory(path.parent)
        path.mkdir(mode=mode, exist_ok=True)
        with suppress(PermissionError):
            sync_directory(path.parent)


def write_file(path: Path, batches: Iterable[Sequence[Bytes]], label: str, *, sync: bool) -> None:
    """Writes a file under a temporary name and then gives it its own, in place of what had it.

    Its name is on the disk when the directory was synced. See `write_temporary` for all else.
    """
    os.rename(write_temporary(path, batches, label, sync=sync), path)
    failpoints.hit(f"{label}.renamed")


def write_temporary(path: Path, batches: Iterable[Sequence[Bytes]], label: str, *, sync: bool) -> Path:
    """Writes what is to become a file, and returns its temporary name; with `sync` the content is on the disk then.

    One that could not be written is removed. The failpoints begin with the label.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        _fill(temporary, batches, label, sync=sync)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextmanager
def new_directory(root: Path, name: str, *, sync: bool) -> Iterator[Path]:
    """Gives an empty directory to fill, which gets its name at the end, or is removed when filling it fails."""
    temporary, path = root / f"{UNFINISHED}{name}", root / name
    made = temporary
    try:
        temporary.mkdir()
        failpoints.hit("create.made")
        yield temporary
        failpoints.hit("create.filled")
        if sync:
            sync_directory(temporary)
        os.rename(temporary, path)
        made = path
        failpoints.hit("create.renamed")
        if sync:
            sync_directory(root)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def size_of(path: Path) -> int:
    """Returns the bytes of all files in a directory, 0 when there is none."""
    try:
        with os.scandir(path) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except FileNotFoundError:
        return 0


class Usage:
    """The bytes that the files of all sessions have, against their limit. May be used by several threads at once.

    Attributes:
        most: The limit; None for none, where what was there before the process began is not counted.
        tally: What has been written of them since then.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.tally = Tally()
        self._used: dict[str, int] = {}
        self._total = 0
        self._mutex = threading.Lock()

    @property
    def total(self) -> int:
        """The bytes of all sessions."""
        return self._total

    def take(self, session_id: str, nbytes: int, *, checked: bool = True) -> None:
        """Counts bytes that a session is about to write; raises DiskQuotaExceeded and counts none if it may not."""
        with self._mutex:
            if checked and self.most is not None and self._total + nbytes > self.most:
                raise DiskQuotaExceeded(
                    f"{nbytes:,} more bytes are to be written, but the files of all sessions hold {self._total:,} of "
                    f"the {self.most:,} that they may; delete sessions or checkpoints that are not needed, or raise "
                    "--max-disk-bytes",
                    quota="max_disk_bytes",
                )
            self._used[session_id] = self._used.get(session_id, 0) + nbytes
            self._total += nbytes

    def give(self, session_id: str, nbytes: int) -> None:
        """Counts bytes no longer that a session had and that are not, or not any more, on the disk."""
        self.take(session_id, -nbytes, checked=False)

    def forget(self, session_id: str) -> None:
        """Counts nothing of a session any more."""
        with self._mutex:
            self._total -= self._used.pop(session_id, 0)


def _fill(path: Path, batches: Iterable[Sequence[Bytes]], label: str, *, sync: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        failpoints.hit(f"{label}.begun")
        end = 0
        for batch in batches:
            for part in failpoints.halves(f"{label}.half", batch):
                end = write_all(descriptor, part, end)
        failpoints.hit(f"{label}.written")
        if sync:
            os.fsync(descriptor)
        failpoints.hit(f"{label}.synced")
    finally:
        os.close(descriptor)


def _batches(pieces: Sequence[Bytes]) -> Iterator[Sequence[Bytes]]:
    if len(pieces) <= MOST_PIECES:
        yield pieces
        return
    for start in range(0, len(pieces), MOST_PIECES):
        yield pieces[start : start + MOST_PIECES]


def _after(pieces: list[memoryview], written: int) -> list[memoryview]:
    """Returns what is left of the pieces when their first bytes were written; it begins with no empty one."""
    for index, piece in enumerate(pieces):
        if written < len(piece):
            return [piece[written:], *pieces[index + 1 :]]
        written -= len(piece)
    return []
