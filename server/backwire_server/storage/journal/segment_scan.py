"""Reads segments of a journal, and tells writes that were interrupted from damage."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from backwire_api.checksum import crc32
from backwire_api.v1 import storage_pb2
from backwire_api.wire_scan import varint
from backwire_server.storage.disk import damaged
from backwire_server.storage.journal.segment import FORMAT, FRAME, MAGIC, first_number

READ_BYTES = 1 << 20

_NUMBER_TAG = b"\x08"  # every record begins with its number

SECTOR_BYTES = 512
"""What a disk writes whole or not at all, at the least."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a segment.

    Attributes:
        header: What it begins with; None when that was not written to the end.
        spans: Where the bodies of its records begin and end.
        end: Where the last whole record ends.
        torn: How many bytes there are behind that.
        unwritten: Whether the record there is not whole for want of bytes: it ends with the file, or has zeros in their
            place. Told by `whole_part` alone.
    """

    header: storage_pb2.JournalHeader | None
    spans: Sequence[tuple[int, int]]
    end: int
    torn: int
    unwritten: bool = False


def scan(path: Path, *, last: bool) -> Scan:
    """Reads a segment from its beginning to its end and checks every record.

    Raises SessionQuarantined for what is damaged. In the last segment of a journal that is not what an interrupted
    write leaves: a record that ends too early, or one whose checksum is wrong, and nothing but zeros behind it.
    """
    with open(path, "rb", buffering=READ_BYTES) as file:
        return _scan(_Reader(file, path, last=last))


def whole_part(path: Path) -> Scan:
    """Returns what of a segment is whole from its beginning on, whatever follows.

    Raises SessionQuarantined for a whole header that is not what its name says.
    """
    with open(path, "rb", buffering=READ_BYTES) as file:
        return _scan(_Reader(file, path, last=True, judges=False))


def header_of(path: Path) -> storage_pb2.JournalHeader | None:
    """Returns what a segment begins with, None where that is not whole; raises as `whole_part` does."""
    with open(path, "rb") as file:
        return _Reader(file, path, last=True, judges=False).header()


def bodies(path: Path, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yields the records at places that `scan` found."""
    with open(path, "rb", buffering=READ_BYTES) as file:
        for begin, end in spans:
            file.seek(begin)
            yield file.read(end - begin)


def is_empty(path: Path) -> bool:
    """Tells whether a segment ends with its header; a guess by its size, which reads no record."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(len(MAGIC) + FRAME.size)
        length = FRAME.unpack_from(head, len(MAGIC))[0] if len(head) == len(MAGIC) + FRAME.size else 0
        return os.fstat(file.fileno()).st_size <= len(head) + length


class _Reader:
    """Reads the records of a segment one after another.

    Attributes:
        size: The bytes of the segment.
        position: Behind the last whole record.
        unwritten: As in Scan, for one that does not judge.
    """

    def __init__(self, file: BinaryIO, path: Path, *, last: bool, judges: bool = True) -> None:
        """Raises SessionQuarantined, if it judges, unless what is not whole is what an interruption leaves."""
        first = first_number(path.name)
        assert first is not None, "only segments are read"
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.unwritten = False
        self._first = first
        self._file = file
        self._path = path
        self._last = last
        self._judges = judges

    def header(self) -> storage_pb2.JournalHeader | None:
        """Returns the header, None when it was not written to the end."""
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            begun = self._last and (MAGIC.startswith(magic) or not any(magic)) and self._only_zeros(len(magic))
            if self._judges and not begun:
                raise damaged(self._path, "it is no segment of a journal", 0)
            self.unwritten = MAGIC.startswith(magic) or not any(magic)
            return None
        self.position = len(MAGIC)
        body = self._next(self._first)
        if body is None:
            self.position = 0
            return None
        try:
            header = storage_pb2.JournalHeader.FromString(body)
        except DecodeError:
            raise damaged(self._path, "its header cannot be read", len(MAGIC)) from None
        if header.first_number != self._first or header.format != FORMAT:
            what = f"it begins with record {header.first_number} in format {header.format}, and not as its name says"
            raise damaged(self._path, what, len(MAGIC))
        return header

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yields where the bodies of the records begin and end."""
        following = self._first + 1
        while (body := self._next(following)) is not None:
            yield self.position - len(body), self.position
            following += 1

    def _next(self, following: int) -> bytes | None:
        """Returns the body at `position` and moves behind it; None at the end, and for one that was interrupted.

        `following` is the number of the record that would come after it.
        """
        if self.position == self.size:
            return None
        frame = self._file.read(FRAME.size)
        end = self.size
        if len(frame) == FRAME.size:
            length, checksum = FRAME.unpack(frame)
            end = self.position + FRAME.size + length
            if end <= self.size:
                body = self._file.read(length)
                if crc32(body, crc32(frame[:4])) == checksum:
                    self.position = end
                    return body
        if self._judges:
            self._check_interrupted(end, following)
        else:
            self.unwritten = self._is_unwritten(end, following)
        return None

    def _check_interrupted(self, end: int, following: int) -> None:
        """Raises SessionQuarantined unless the record at `position` is where writing was interrupted."""
        if not self._last:
            raise damaged(self._path, "a record is damaged, and other segments follow", self.position)
        if not self._only_zeros(end) or (end > self.size and self._has(following)):
            raise damaged(self._path, "a record is damaged, and others follow", self.position)

    def _is_unwritten(self, end: int, following: int) -> bool:
        """Tells whether the record at `position` ends with the file, or has zeros: 8, or as far as a sector goes."""
        if self.size - self.position < FRAME.size:
            return True
        if end > self.size:
            return not self._has(following)
        self._file.seek(self.position)
        data = self._file.read(end - self.position + FRAME.size - 1)
        sector = SECTOR_BYTES - self.position % SECTOR_BYTES
        return bytes(FRAME.size) in data or not any(data[:sector])

    def _only_zeros(self, start: int) -> bool:
        self._file.seek(min(start, self.size))
        while piece := self._file.read(READ_BYTES):
            if piece.count(0) != len(piece):
                return False
        return True

    def _has(self, number: int) -> bool:
        """Tells whether there is a record of this number behind `position`, wherever it begins.

        If so, the length of the one before it is wrong: that would lie beyond the end of the file.
        """
        self._file.seek(self.position + FRAME.size)
        data = self._file.read()
        mark = _NUMBER_TAG + varint(number)
        found = data.find(mark, FRAME.size)
        while found >= 0:
            length, checksum = FRAME.unpack_from(data, found - FRAME.size)
            whole = len(mark) <= length <= len(data) - found
            if (
                whole
                and crc32(memoryview(data)[found : found + length], crc32(length.to_bytes(4, "little"))) == checksum
            ):
                return True
            found = data.find(mark, found + 1)
        return False


def _scan(reader: _Reader) -> Scan:
    header = reader.header()
    spans = list(reader.spans()) if header else []
    return Scan(header, spans, reader.position, reader.size - reader.position, reader.unwritten)
