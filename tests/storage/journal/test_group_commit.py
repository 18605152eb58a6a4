"""Flushes of the journal: one for many, none too few, and what follows when one fails."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.toy import filled_journal, journal, journal_of, mutation, read_journal

from backwire_server.sessions.errors import (
    Cancelled,
    StorageFailed,
)
from backwire_server.sessions.scope import UNBOUNDED, Unbounded

Arm = Callable[[str], object]


class Gone(Unbounded):
    """The scope of a caller who is gone."""

    def check(self) -> None:
        raise Cancelled("gone")


class Flushes:
    """Holds up the first flush until `go`, and counts them all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = True) -> None:
        self.count = 0
        self.begun, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()
        monkeypatch.setattr(os, "fdatasync", self._flush)

    def _flush(self, _: int) -> None:
        self.count += 1
        self.begun.set()
        assert self.go.wait(30)


def test_one_flush_serves_all_that_was_written_before_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = journal(tmp_path / "a", sync=True)
    flushes = Flushes(monkeypatch)
    threads = [threading.Thread(target=made.wait, args=(made.append(mutation(1)), UNBOUNDED))]
    threads[0].start()
    assert flushes.begun.wait(30)
    numbers = [made.append(mutation(value)) for value in range(2, 10)]
    threads += [threading.Thread(target=made.wait, args=(number, UNBOUNDED)) for number in numbers]
    for thread in threads[1:]:
        thread.start()
    flushes.go.set()
    for thread in threads:
        thread.join(30)
    assert flushes.count == 2, "one for the first, and one for the eight that came while it went on"


def test_who_waits_for_the_flush_of_another_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = journal(tmp_path / "a", sync=True)
    flushes = Flushes(monkeypatch)
    number = made.append(mutation(1))
    first = threading.Thread(target=made.wait, args=(number, UNBOUNDED))
    first.start()
    assert flushes.begun.wait(30)
    with pytest.raises(Cancelled):
        made.wait(number, Gone())
    flushes.go.set()
    first.join(30)


def test_a_journal_that_is_not_to_be_flushed_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes = Flushes(monkeypatch, held=False)
    made = journal(tmp_path / "a")
    made.wait(made.append(mutation(1)), UNBOUNDED)
    made.rotate()
    made.close()
    assert flushes.count == 0


def test_what_was_written_is_flushed_before_another_segment_and_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = journal(tmp_path / "a", sync=True)
    flushes = Flushes(monkeypatch, held=False)
    made.append(mutation(1))
    made.rotate()
    assert flushes.count == 2, "the old segment, and the header of the new one"
    made.append(mutation(2))
    made.close()
    assert flushes.count == 3
    made.wait(2, UNBOUNDED)
    assert flushes.count == 3


def test_what_another_process_wrote_is_flushed_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_journal(tmp_path / "a", 2)
    flushes = Flushes(monkeypatch, held=False)
    journal_of(tmp_path / "a", sync=True).replay(0)
    assert flushes.count == 1


def test_after_a_failed_flush_everything_fails_until_the_journal_is_opened_again(tmp_path: Path, arm: Arm) -> None:
    made = journal(tmp_path / "a", sync=True)
    made.append(mutation(1))
    arm("journal.flush=EIO")
    for _ in range(2):
        with pytest.raises(StorageFailed, match="not known"):
            made.wait(1, UNBOUNDED)
    with pytest.raises(StorageFailed):
        made.append(mutation(2))
    assert made.broken
    made.close()
    assert read_journal(tmp_path / "a") == [1]


def test_all_who_wait_hear_of_a_failed_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = journal(tmp_path / "a", sync=True)
    begun, go = threading.Event(), threading.Event()

    def flush(_: int) -> None:
        begun.set()
        assert go.wait(30)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", flush)
    failures: list[StorageFailed] = []

    def wait(number: int) -> None:
        try:
            made.wait(number, UNBOUNDED)
        except StorageFailed as error:
            failures.append(error)

    threads = [threading.Thread(target=wait, args=(made.append(mutation(value)),)) for value in range(1, 5)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(failures) == 4
