"""One segment of a journal: a file of records, each with its length and a checksum. See docs/storage.md."""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from backwire_api.checksum import crc32
from backwire_api.tensors import Bytes
from backwire_api.v1 import storage_pb2
from backwire_server.sessions.errors import StorageFailed
from backwire_server.storage import failpoints
from backwire_server.storage.disk import write_all

MAGIC = b"BWJRNL01"
FORMAT = 1
FRAME = struct.Struct("<II")
"""What precedes a record: its length, and the CRC-32 of these four bytes and of the record."""

MOST_BYTES = (1 << 32) - 1

RENEWED_BYTES = 1 << 20  # at a time


def file_name(first: int) -> str:
    """Returns the name of the segment whose first record has this number."""
    return f"journal-{first:020d}.log"


def first_number(name: str) -> int | None:
    """Returns the number that `file_name` made a name of; None for other names."""
    digits = name.removeprefix("journal-").removesuffix(".log")
    return int(digits) if digits.isdecimal() and name == file_name(int(digits)) else None


def framed(pieces: Sequence[Bytes]) -> list[Bytes]:
    """Returns a record as it lies in a segment; raises StorageFailed for one that is too long."""
    size = sum(map(len, pieces))
    if size > MOST_BYTES:
        raise StorageFailed(
            f"the call has {size:,} bytes, but a record of the journal may have {MOST_BYTES:,}; divide it into several"
        )
    found = crc32(size.to_bytes(4, "little"))
    for piece in pieces:
        found = crc32(piece, found)
    return [FRAME.pack(size, found), *pieces]


def renew(path: Path, end: int | None = None) -> None:
    """Returns when all that is in a file is on the disk, whoever wrote it, and whether or not a flush has failed.

    With `end`, what is before that is: others may append to it meanwhile.

    Of what it could not write, a kernel takes note once: it may keep that in memory as if it had been written, and the
    next flush succeeds. So all is written again, in its place, where what is on the disk stays as it is at any moment.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        offset = 0
        while piece := os.pread(descriptor, RENEWED_BYTES if end is None else min(RENEWED_BYTES, end - offset), offset):
            offset = write_all(descriptor, [piece], offset)
        failpoints.hit("journal.renewed")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def beginning(path: Path, end: int) -> Iterator[list[bytes]]:
    """Yields what a segment has before a place, some of it at a time."""
    with open(path, "rb") as file:
        while piece := file.read(min(RENEWED_BYTES, end - file.tell())):
            yield [piece]


class Segment:
    """A segment that records are appended to. For one thread at a time, but for `flush`.

    Attributes:
        path: Where it is.
        end: Where its last record ends.
    """

    def __init__(self, path: Path, end: int) -> None:
        """Opens the file, and cuts what is in it behind `end`."""
        self.path = path
        self.end = end
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._descriptor).st_size > end:
                failpoints.hit("journal.cut")
                os.ftruncate(self._descriptor, end)
        except BaseException:
            os.close(self._descriptor)
            raise

    def begin(self, header: storage_pb2.JournalHeader) -> None:
        """Writes what a segment begins with."""
        failpoints.hit("segment.created")
        self.end = write_all(self._descriptor, [MAGIC, *framed([header.SerializeToString()])], 0)
        failpoints.hit("segment.headed")

    def append(self, record: Sequence[Bytes]) -> None:
        """Writes what `framed` returned. When it raises OSError, part of the record may be there; see `undo`."""
        failpoints.hit("journal.append")
        end = self.end
        for part in failpoints.halves("journal.append.half", record):
            end = write_all(self._descriptor, part, end)
        failpoints.hit("journal.append.written")
        self.end = end

    def undo(self) -> None:
        """Removes what an `append` left that failed."""
        failpoints.hit("journal.append.undo")
        os.ftruncate(self._descriptor, self.end)

    def flush(self) -> None:
        """Returns when all that was appended before is on the disk."""
        failpoints.hit("journal.flush")
        os.fdatasync(self._descriptor)
        failpoints.hit("journal.flushed")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)
