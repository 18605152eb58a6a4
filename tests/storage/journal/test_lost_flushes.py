"""A kernel that could not write what it has in memory says so once; what is acknowledged is on the disk even so."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.storage.durable import Disk, create, do, killed, standing
from tests.storage.toy import journal, journal_of, mutation, names, read_journal, values

from backwire_server.sessions import errors
from backwire_server.sessions.errors import StorageFailed
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.storage.disk import UNFINISHED
from backwire_server.storage.journal.segment import file_name


class Kernel:
    """What a kernel has of journals in memory, and what is on the disk of them.

    Attributes:
        fails: Whether the next flush does; what it was to write stays in memory, and counts as written.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = False
        self._unwritten: dict[str, list[tuple[int, bytes]]] = {}
        self._disk: dict[str, bytearray] = {}
        self._write, self._flush = os.pwritev, os.fdatasync
        monkeypatch.setattr(os, "pwritev", self._written)
        monkeypatch.setattr(os, "fdatasync", self._flushed)

    def lose_power(self) -> None:
        """Leaves of each journal what is on the disk."""
        for path, data in self._disk.items():
            Path(path).write_bytes(data)
        self._unwritten.clear()

    def _written(self, descriptor: int, pieces: Sequence[memoryview], offset: int) -> int:
        written = self._write(descriptor, pieces, offset)
        data = b"".join(map(bytes, pieces))[:written]
        self._unwritten.setdefault(_path(descriptor), []).append((offset, data))
        return written

    def _flushed(self, descriptor: int) -> None:
        path = _path(descriptor)
        unwritten = self._unwritten.pop(path, [])
        if self.fails:
            self.fails = False
            raise OSError(5, "Input/output error")
        self._flush(descriptor)
        if Path(path).name.startswith("journal-"):
            disk = self._disk.setdefault(path, bytearray())
            for offset, data in unwritten:
                disk.extend(bytes(max(0, offset + len(data) - len(disk))))
                disk[offset : offset + len(data)] = data


def _path(descriptor: int) -> str:
    """Where a file is once its session is made."""
    return os.readlink(f"/proc/self/fd/{descriptor}").replace(UNFINISHED, "")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_what_is_done_once_a_flush_failed_is_on_the_disk_when_its_repetition_is_acknowledged(
    disk: Disk, kernel: Kernel
) -> None:
    session, undisturbed = create(disk.open(Durability.FSYNC)), disk.undisturbed()
    do(session, "train")
    kernel.fails = True
    with pytest.raises(errors.StorageFailed, match="Input/output error"):
        do(session, "train again")
    assert do(session, "train again") == do(undisturbed, "train", "train again")[1:]
    kernel.lose_power()
    assert standing(killed(disk, session)) == standing(undisturbed)


def test_what_the_next_process_finds_after_a_flush_that_failed_is_on_the_disk_when_it_acknowledges_it(
    disk: Disk, kernel: Kernel
) -> None:
    session, undisturbed = create(disk.open(Durability.FSYNC)), disk.undisturbed()
    kernel.fails = True
    with pytest.raises(errors.StorageFailed, match="Input/output error"):
        do(session, "train")
    session = killed(disk, session)
    assert do(session, "train") == do(undisturbed, "train")
    kernel.lose_power()
    assert standing(killed(disk, session)) == standing(undisturbed)


def test_a_checkpoint_counts_once_the_journal_is_on_the_disk_though_a_flush_of_it_has_failed(
    tmp_path: Path, kernel: Kernel
) -> None:
    made = journal(tmp_path / "a")
    made.append(mutation(1))
    kernel.fails = True
    with pytest.raises(StorageFailed, match="Input/output error"):
        made.secure(1)
    made.append(mutation(2))
    made.secure(2)
    made.rotate()
    made.append(mutation(3))
    made.secure(3)
    kernel.lose_power()
    assert read_journal(tmp_path / "a") == [1, 2, 3]


def test_a_journal_of_a_process_that_was_killed_after_a_flush_that_failed_is_written_again_for_the_next_checkpoint(
    tmp_path: Path, kernel: Kernel
) -> None:
    made = journal(tmp_path / "a")
    made.append(mutation(1))
    kernel.fails = True
    with pytest.raises(StorageFailed, match="Input/output error"):
        made.secure(1)
    again = journal_of(tmp_path / "a")
    assert again.append(mutation(2)) == 2
    again.secure(2)
    kernel.lose_power()
    assert read_journal(tmp_path / "a") == [1, 2]


def test_a_segment_that_ended_for_a_checkpoint_that_failed_is_written_again_by_the_next_process(
    tmp_path: Path, kernel: Kernel
) -> None:
    made = journal(tmp_path / "a")
    made.append(mutation(1))
    made.rotate()
    kernel.fails = True
    with pytest.raises(StorageFailed, match="Input/output error"):
        made.secure(1)
    made.append(mutation(2))
    again = journal_of(tmp_path / "a")
    assert values(again.replay(0).mutations) == [1, 2]
    again.secure(2)
    kernel.lose_power()
    assert read_journal(tmp_path / "a") == [1, 2]


def test_a_segment_is_written_again_as_far_as_its_records_go_while_another_is_appended(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = journal(tmp_path / "a")
    made.append(mutation(1))
    kernel.fails = True
    with pytest.raises(StorageFailed):
        made.secure(1)
    assert made._tail.segment is not None
    end = made._tail.segment.end
    with made._tail.segment.path.open("ab") as file:
        file.write(b"the beginning of a record")
    written: list[int] = []
    write = os.pwritev

    def noted(descriptor: int, pieces: Sequence[memoryview], offset: int) -> int:
        written.append(offset + sum(map(len, pieces)))
        return write(descriptor, pieces, offset)

    monkeypatch.setattr(os, "pwritev", noted)
    made.secure(1)
    assert written == [end]


def test_a_segment_that_cannot_be_written_again_is_refused_until_it_can(tmp_path: Path, kernel: Kernel) -> None:
    made = journal(tmp_path / "a", sync=True)
    made.append(mutation(1))
    for _ in range(2):
        kernel.fails = True
        with pytest.raises(StorageFailed, match="not known"):
            journal_of(tmp_path / "a", sync=True).replay(0)
    again = journal_of(tmp_path / "a", sync=True)
    assert again.replay(0).count == 1
    again.wait(again.append(mutation(2)), UNBOUNDED)
    kernel.lose_power()
    assert journal_of(tmp_path / "a").replay(0).count == 2
    assert names(tmp_path / "a") == [file_name(1)]
