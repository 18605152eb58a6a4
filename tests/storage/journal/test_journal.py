"""The journal: numbers without gaps over all segments, nothing lost that was acknowledged, nothing guessed."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.toy import filled_journal, journal, journal_of, mutation, names, read_journal

from backwire_server.sessions.errors import (
    DiskQuotaExceeded,
    SessionQuarantined,
    StorageFailed,
)
from backwire_server.sessions.keeping.durable import Mutation
from backwire_server.storage.disk import Usage, size_of
from backwire_server.storage.journal import environment as environments
from backwire_server.storage.journal.journal import Journal
from backwire_server.storage.journal.segment import file_name

Arm = Callable[[str], object]


@given(lengths=st.lists(st.integers(1, 3), min_size=1, max_size=4), close=st.booleans())
def test_a_journal_is_replayed_from_where_any_segment_begins(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], close: bool
) -> None:
    directory = filled_journal(tmp_path_factory.mktemp("journal") / "a", *lengths)
    start = 0
    for length in [*lengths, 0]:
        if length:
            assert read_journal(directory, start) == list(range(start + 1, sum(lengths) + 1))
        start += length
    found = journal_of(directory)
    assert found.append(mutation(99)) == start + 1
    if close:
        found.close()
    assert read_journal(directory)[-1] == 99


def test_a_mutation_comes_back_with_its_request_and_the_passes_that_went(tmp_path: Path) -> None:
    made = journal(tmp_path / "a")
    told = Mutation(mutation(1).call, mutation(1).key, ["old", "older"])
    made.append(told)
    (found,) = journal_of(tmp_path / "a").replay(0).mutations
    assert (found.key, list(found.dropped)) == (told.key, ["old", "older"])


def test_an_empty_segment_is_used_and_no_other_begun(tmp_path: Path) -> None:
    made = journal(tmp_path / "a")
    assert made.rotate() == made.rotate() == 0
    made.append(mutation(1))
    assert made.rotate() == made.rotate() == 1
    assert names(tmp_path / "a") == [file_name(1), file_name(2)]
    assert (made.follows(0), made.follows(1), 2 in made.segments.firsts) == (True, False, True)
    assert (journal_of(tmp_path / "a").follows(0), journal_of(tmp_path / "a").follows(1)) == (True, False)
    assert made.segments.bytes_after(1) == (tmp_path / "a" / file_name(2)).stat().st_size


def test_a_torn_tail_is_cut_and_the_journal_goes_on_behind_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = filled_journal(tmp_path / "a", 1, 2) / file_name(2)
    path.write_bytes(path.read_bytes()[:-3])
    assert read_journal(tmp_path / "a") == [1, 2]
    assert "were cut" in caplog.text
    assert journal_of(tmp_path / "a").append(mutation(7)) == 3
    assert read_journal(tmp_path / "a") == [1, 2, 7]


@pytest.mark.parametrize("size", [0, 5, 8, 20])
def test_a_segment_whose_header_was_not_written_is_begun_again(tmp_path: Path, size: int) -> None:
    directory = filled_journal(tmp_path / "a", 2)
    found = journal_of(directory)
    found.rotate()
    found.close()
    path = directory / file_name(3)
    path.write_bytes(path.read_bytes()[:size])
    assert not journal_of(directory).follows(2)
    found = journal_of(directory)
    assert found.replay(0).count == 2
    assert found.append(mutation(3)) == 3
    assert read_journal(directory) == [1, 2, 3]


def test_a_header_that_cannot_be_written_again_stays_torn(tmp_path: Path, arm: Arm) -> None:
    directory = filled_journal(tmp_path / "a", 2, 1)
    (directory / file_name(3)).write_bytes(b"BWJ")
    arm("segment.created=ENOSPC")
    with pytest.raises(StorageFailed, match="could not be opened"):
        journal_of(directory).replay(0)
    assert read_journal(directory) == [1, 2]


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_a_missing_segment_is_refused(tmp_path: Path, missing: int) -> None:
    directory = filled_journal(tmp_path / "a", 2, 2, 1)
    (directory / file_name(missing)).unlink()
    start = 4 if missing == 5 else 0
    with pytest.raises(SessionQuarantined, match="missing" if missing != 3 else "gap: the record before it is 2"):
        journal_of(directory).replay(start)


def test_a_journal_without_segments_is_refused(tmp_path: Path) -> None:
    directory = filled_journal(tmp_path / "a", 1)
    (directory / file_name(1)).unlink()
    found = journal_of(directory)
    assert found.follows(0)
    with pytest.raises(SessionQuarantined, match="no segment"):
        found.append(mutation(1))


def test_a_segment_that_vanishes_is_refused(tmp_path: Path) -> None:
    directory = filled_journal(tmp_path / "a", 1)
    found = journal_of(directory)
    (directory / file_name(1)).unlink()
    with pytest.raises(SessionQuarantined, match="the file is missing"):
        found.replay(0)


def test_damage_before_the_last_segment_is_refused(tmp_path: Path) -> None:
    path = filled_journal(tmp_path / "a", 2, 2) / file_name(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SessionQuarantined, match="other segments follow"):
        read_journal(tmp_path / "a")
    assert read_journal(tmp_path / "a", 2) == [3, 4]


def test_a_segment_of_another_session_is_refused_unless_that_is_an_ancestor(tmp_path: Path) -> None:
    directory = filled_journal(tmp_path / "a", 1)
    with pytest.raises(SessionQuarantined, match="another session, 'a'"):
        Journal(directory, "b", (), Usage(), sync=False).replay(0)
    assert Journal(directory, "b", ("a",), Usage(), sync=False).replay(0).count == 1


def test_records_whose_numbers_have_a_gap_are_refused(tmp_path: Path) -> None:
    made = journal(tmp_path / "a")
    made.append(mutation(1))
    made._tail.wrote(2)
    made.append(mutation(2))
    with pytest.raises(SessionQuarantined, match="record 3 where 2 should be"):
        read_journal(tmp_path / "a")


def test_a_record_that_is_no_mutation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = journal(tmp_path / "a")
    monkeypatch.setattr("backwire_server.storage.journal.journal.encode_mutation", lambda *_: [b"\x08\x01\xff"])
    made.append(mutation(1))
    with pytest.raises(SessionQuarantined, match=r"byte [0-9]+: .*journal"):
        read_journal(tmp_path / "a")


def test_a_replay_under_other_conditions_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    directory = filled_journal(tmp_path / "a", 1)
    read_journal(directory)
    assert caplog.text == ""
    changed = {**environments.environment(), "numpy": "0.1"}
    monkeypatch.setattr("backwire_server.storage.journal.segments.environment", lambda **_: changed)
    read_journal(directory)
    assert "bits may differ: numpy was " in caplog.text
    assert "and is 0.1" in caplog.text


def test_pruning_removes_only_segments_without_a_later_record(tmp_path: Path) -> None:
    directory = filled_journal(tmp_path / "a", 2, 2, 2)
    found = journal_of(directory)
    found.segments.prune(1)
    assert len(names(directory)) == 3
    found.segments.prune(3)
    assert names(directory) == [file_name(3), file_name(5)]
    found.segments.prune(100)
    assert names(directory) == [file_name(5)]
    assert found.append(mutation(7)) == 7


@pytest.mark.parametrize("place", ["journal.append", "journal.append.half", "journal.append.written"])
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO"])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, arm: Arm, place: str, error: str) -> None:
    usage = Usage(10_000)
    directory = filled_journal(tmp_path / "a", 2)
    before = (directory / file_name(1)).read_bytes()
    found = Journal(directory, "a", (), usage, sync=False)
    arm(f"{place}={error}")
    with pytest.raises(StorageFailed, match="could not be written") as failure:
        found.append(mutation(3))
    assert failure.value.retry_after == 1.0
    assert (directory / file_name(1)).read_bytes() == before
    assert usage.total == 0
    assert not found.broken
    assert found.append(mutation(4)) == 3
    assert read_journal(directory) == [1, 2, 4]


def test_a_full_disk_is_logged_once_in_a_while(tmp_path: Path, arm: Arm, caplog: pytest.LogCaptureFixture) -> None:
    found = journal(tmp_path / "a")
    for _ in range(3):
        arm("journal.append=ENOSPC")
        with pytest.raises(StorageFailed):
            found.append(mutation(1))
    (record,) = [each for each in caplog.records if "could not be written" in each.message]
    assert (record.levelname, "No space left" in record.message) == ("ERROR", True)


def test_a_half_written_record_that_cannot_be_removed_breaks_the_journal_until_it_is_opened_again(
    tmp_path: Path, arm: Arm
) -> None:
    directory = filled_journal(tmp_path / "a", 2)
    found = journal_of(directory)
    arm("journal.append.half=ENOSPC,journal.append.undo=EIO")
    for _ in range(2):
        with pytest.raises(StorageFailed):
            found.append(mutation(3))
    assert found.broken
    with pytest.raises(StorageFailed, match="could not be removed"):
        found.rotate()
    found.close()
    found = journal_of(directory)
    assert found.replay(0).count == 2
    assert found.append(mutation(3)) == 3


@pytest.mark.parametrize("place", ["segment.created", "segment.headed"])
def test_a_segment_that_cannot_be_begun_is_not_left_behind(tmp_path: Path, arm: Arm, place: str) -> None:
    directory = filled_journal(tmp_path / "a", 2)
    found = journal_of(directory)
    arm(f"{place}=ENOSPC")
    with pytest.raises(StorageFailed, match="new segment"):
        found.rotate()
    assert names(directory) == [file_name(1)]
    assert found.append(mutation(3)) == 3
    assert read_journal(directory) == [1, 2, 3]


def test_more_than_the_quota_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    directory = filled_journal(tmp_path / "a", 1)
    size = size_of(directory)
    usage = Usage(2 * size_of(filled_journal(tmp_path / "b", 2)) - size - 1)
    usage.take("a", size)
    found = Journal(directory, "a", (), usage, sync=False)
    assert found.append(mutation(2)) == 2
    with pytest.raises(DiskQuotaExceeded, match="--max-disk-bytes") as refusal:
        found.append(mutation(3))
    assert refusal.value.quota == "max_disk_bytes"
    assert size_of(directory) == usage.total
