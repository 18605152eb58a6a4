"""A session in several segments, and what is left of their bytes after something happened to them."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.storage.toy import append, create

from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.journal.segment import file_name

Tear = Callable[[Path], object]


def lived(directory: Path, durability: Durability = Durability.JOURNAL) -> Path:
    """A session that has set 1 to 7, with segments of 3, 2 and 2 records and no checkpoint; returns where it is."""
    files = create(directory, durability)
    append(files, 1, 2, 3)
    files._journal.rotate()
    append(files, 4, 5)
    files._journal.rotate()
    append(files, 6, 7)
    files.close()
    return directory / "sessions" / "a"


def places(path: Path) -> list[int]:
    """Where the records of a segment begin and end, its header first."""
    data, found = path.read_bytes(), [8]
    while found[-1] < len(data):
        found.append(found[-1] + 8 + int.from_bytes(data[found[-1] : found[-1] + 4], "little"))
    return found


def blank(path: Path, begin: int, end: int) -> None:
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


def lose_record(first: int, number: int) -> Tear:
    """Leaves zeros of a record of a segment, 0 for its header."""

    def tear(session: Path) -> None:
        path = session / file_name(first)
        begin, end = places(path)[number : number + 2]
        blank(path, begin, end)

    return tear


def cut_after(first: int, number: int, more: int = 0) -> Tear:
    """Cuts a segment after so many of its records and bytes."""

    def tear(session: Path) -> None:
        path = session / file_name(first)
        os.truncate(path, places(path)[number + 1] + more)

    return tear


def content(session: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in session.iterdir()}


def change(path: Path, place: int) -> None:
    """Inverts a byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
