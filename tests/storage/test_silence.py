"""When a disk is said to hang: where something takes long for its bytes, and nothing comes to an end meanwhile."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.storage.toy import journal, journal_of, mutation

from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.storage.journal.segment import Segment
from backwire_server.storage.silence import LATELY_SECONDS, LONG_SECONDS, MOST_SECONDS, SLOW_BYTES, Progress
from backwire_server.storage.tally import Tally


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("backwire_server.storage.silence.time", SimpleNamespace(monotonic=found.monotonic))
    return found


def elsewhere(do: Callable[[], object]) -> None:
    """Does it in a thread of its own."""
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()


def test_what_takes_long_is_told_until_it_ends(clock: Clock) -> None:
    progress = Progress()
    progress.begin(0)
    clock.now += LONG_SECONDS - 0.1
    assert progress.silence == 0
    clock.now += 0.1
    assert progress.silence == pytest.approx(LONG_SECONDS)
    progress.end()
    assert progress.silence == 0


def test_many_bytes_may_take_longer_for_whoever_waits_behind_them(clock: Clock) -> None:
    progress = Progress()
    progress.begin(0)
    elsewhere(lambda: progress.begin(20 * SLOW_BYTES))
    clock.now += LONG_SECONDS + 19.9
    assert progress.silence == 0
    clock.now += 0.1
    assert progress.silence == pytest.approx(LONG_SECONDS + 20)


def test_a_disk_that_does_anything_does_not_hang_though_one_thing_lasts(clock: Clock) -> None:
    progress = Progress()
    elsewhere(lambda: progress.begin(0))
    for _ in range(3):
        progress.begin(0)
        clock.now += LONG_SECONDS - 0.1
        progress.end()
        assert progress.silence == 0
    clock.now += 2 * LONG_SECONDS
    assert progress.silence == pytest.approx(2 * LONG_SECONDS)


def found_to_hang(progress: Progress, clock: Clock, seconds: float, nbytes: int = 0) -> bool:
    """Has something last so long; tells whether the disk is said to hang by its end."""
    progress.begin(nbytes)
    clock.now += seconds
    found = progress.silence > 0
    progress.end()
    return found


def test_a_disk_each_of_whose_flushes_takes_long_is_found_to_hang_once(clock: Clock) -> None:
    progress = Progress()
    found = []
    for _ in range(100):
        found.append(found_to_hang(progress, clock, LONG_SECONDS + 1))
        found_to_hang(progress, clock, 0.1)
    assert found == [True] + [False] * 99
    assert not found_to_hang(progress, clock, LONG_SECONDS + 2), "nor where one takes somewhat longer"
    assert found_to_hang(progress, clock, 2 * (LONG_SECONDS + 2))


def test_of_what_took_long_lately_the_longest_counts_also_when_longer_ones_are_forgotten(clock: Clock) -> None:
    progress = Progress()
    assert found_to_hang(progress, clock, LONG_SECONDS + 3)
    assert not any(found_to_hang(progress, clock, LONG_SECONDS + 1) for _ in range(2 * int(LATELY_SECONDS / 6)))
    assert found_to_hang(progress, clock, 2 * (LONG_SECONDS + 1))


def test_a_disk_that_was_slow_once_hangs_as_soon_as_any_other_after_a_while(clock: Clock) -> None:
    progress = Progress()
    found_to_hang(progress, clock, LONG_SECONDS + 1)
    clock.now += LATELY_SECONDS
    assert found_to_hang(progress, clock, LONG_SECONDS)
    clock.now += LATELY_SECONDS
    found_to_hang(progress, clock, 0.1)
    assert found_to_hang(progress, clock, LONG_SECONDS)


def test_a_disk_that_hung_for_long_is_found_to_hang_again_in_time(clock: Clock) -> None:
    progress = Progress()
    found_to_hang(progress, clock, 3_600)
    assert not found_to_hang(progress, clock, MOST_SECONDS - 0.1)
    assert found_to_hang(progress, clock, MOST_SECONDS)


def test_what_took_long_for_its_bytes_alone_gives_no_more_time_to_others(clock: Clock) -> None:
    progress = Progress()
    assert not found_to_hang(progress, clock, 20, 20 * SLOW_BYTES)
    assert found_to_hang(progress, clock, LONG_SECONDS)


def test_flushes_that_hang_are_told_though_writes_go_on_to_memory(clock: Clock) -> None:
    tally = Tally()
    elsewhere(lambda: tally.flushing.begin(0))
    clock.now += LONG_SECONDS
    tally.writing.begin(0)
    tally.writing.end()
    assert tally.silence == pytest.approx(LONG_SECONDS)


def test_journals_tell_what_they_write_and_what_they_flush_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    begin, flush = Progress.begin, Segment.flush
    made = journal(tmp_path / "a", sync=True)
    tally = made._usage.tally

    def noted(progress: Progress, nbytes: int) -> None:
        told.append(("write" if progress is tally.writing else "flush", nbytes))
        begin(progress, nbytes)

    def looked_at(segment: Segment) -> None:
        assert tally.flushing._going
        flush(segment)

    monkeypatch.setattr(Progress, "begin", noted)
    monkeypatch.setattr(Segment, "flush", looked_at)
    last = [made.append(mutation(number)) for number in (1, 2)][-1]
    made.wait(last, UNBOUNDED)
    made.append(mutation(3))
    made.close()
    size = made.grown // 3
    assert told == [("write", size), ("write", size), ("flush", 2 * size), ("write", size), ("flush", size)]
    path = made.segments.path(1)
    assert journal_of(path.parent, sync=True).last == 3
    assert told[5:] == [("flush", path.stat().st_size)]
    assert not tally.writing._going
    assert not tally.flushing._going
