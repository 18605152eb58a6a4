"""Passing checkpoints shorten what who takes a session over must do again, and change nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.storage.toy import (
    KEY,
    append,
    checkpoint,
    checkpoint_name,
    create,
    history,
    image,
    names,
    reopened,
    spec,
    vault,
)

from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.checkpoints import pacing
from backwire_server.storage.journal import journal
from backwire_server.storage.journal.segment import file_name
from backwire_server.storage.session_files import FileSession


def passing(made: FileSession, *amounts: int) -> None:
    """Writes a passing checkpoint with these mutations, to its end."""
    made.checkpoint(image(list(amounts)), background=True, passing=True)
    made._checkpointing.drain()


def test_a_passing_checkpoint_shortens_a_replay_and_nothing_else(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1, 2)
    passing(made, 1, 2)
    append(made, 3)
    found = reopened(tmp_path)
    recovery = found.recover()
    assert (recovery.count, history(recovery)) == (1, [1, 2, 3])
    oldest = found.recover_from_oldest()
    assert (oldest.image, oldest.count) == (None, 3)
    assert found.rewind(1).image is None, "the whole way is kept"
    assert set(found.spec().sources) == set(spec().sources)
    assert file_name(1) in names(tmp_path / "sessions" / "a")


def test_a_passing_checkpoint_goes_with_the_next_and_takes_the_place_of_none_that_stays(tmp_path: Path) -> None:
    made = create(tmp_path)
    kept = []
    for step in range(1, 4):
        append(made, step)
        checkpoint(made, *range(1, step + 1))
        append(made, 10 * step)
        passing(made, *range(1, step + 1))
        append(made, 20 * step)
        passing(made, *range(1, step + 1))
        kept.append([each.record for each in made._checkpoints.manifest.automatic])
    assert kept == [[1, 3], [1, 4, 6], [4, 7, 9]]
    files = [name for name in names(tmp_path / "sessions" / "a") if name.startswith("checkpoint-")]
    assert files == [checkpoint_name(record) for record in kept[-1]]


def test_a_passing_checkpoint_begins_a_segment_where_the_last_has_become_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LONG_RECORDS", 3)
    made = create(tmp_path)
    append(made, 1, 2)
    passing(made, 1, 2)
    append(made, 3)
    passing(made, 1, 2, 3)
    append(made, 4)
    passing(made, 1, 2, 3, 4)
    append(made, 5)
    segments = [name for name in names(tmp_path / "sessions" / "a") if name.startswith("journal-")]
    assert segments == [file_name(1), file_name(4)]
    recovery = reopened(tmp_path).recover()
    assert (recovery.count, history(recovery)) == (1, [1, 2, 3, 4, 5])
    assert reopened(tmp_path).recover_from_oldest().count == 5


def test_a_session_lags_after_as_much_computing_and_journal_as_are_worth_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SMALL_BYTES", 0)
    home = vault(tmp_path)
    home._place = replace(home._place, replay_seconds=1.0)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    assert [made.lags(seconds) for seconds in (0.9, 1.0)] == [False, True]
    append(made, 1)
    passing(made, 1)
    times, bytes_of_journal = pacing.WORTH
    made._checkpointing._pace.took = 2.0 / times
    assert not made.lags(100.0)
    most = bytes_of_journal * made._checkpoints.manifest.automatic[-1].bytes
    while made.replay_bytes < most:
        assert not made.lags(100.0)
        append(made, 2)
    assert [made.lags(seconds) for seconds in (1.9, 2.0)] == [False, True]


def test_a_session_whose_checkpoint_is_small_lags_after_as_much_computing_alone(tmp_path: Path) -> None:
    home = vault(tmp_path)
    home._place = replace(home._place, replay_seconds=1.0)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1)
    passing(made, 1)
    append(made, 2)
    made._checkpointing._pace.took = 0.0
    most = pacing.WORTH[1] * made._checkpoints.manifest.automatic[-1].bytes
    assert made.replay_bytes < most
    assert [made.lags(seconds) for seconds in (0.9, 1.0)] == [False, True]


def test_a_session_lags_however_often_it_was_taken_over_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "SMALL_BYTES", 0)
    home = vault(tmp_path)
    home._place = replace(home._place, replay_seconds=1.0)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1)
    passing(made, 1)
    most = pacing.WORTH[1] * made._checkpoints.manifest.automatic[-1].bytes
    owners = 0
    while not made.lags(100.0):
        for _ in range(4):
            append(made, 2)
        before = made.replay_bytes
        assert before < 2 * most
        assert owners < 1_000, "it never lags"
        made.close()
        made = home.open("a")
        owners += 1
    assert owners > 3
    assert made.replay_bytes >= max(before, most)


def test_a_session_that_no_other_server_takes_over_does_not_lag(tmp_path: Path) -> None:
    assert not create(tmp_path).lags(1e9)


def test_a_session_whose_last_checkpoint_is_passing_is_dirty_and_gets_one_that_stays(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    passing(made, 1)
    assert made.dirty
    checkpoint(made, 1)
    assert not made.dirty
    assert [each.passing for each in made._checkpoints.manifest.automatic] == [False]
    made.close()
    recovery = reopened(tmp_path).recover()
    assert (recovery.count, history(recovery)) == (0, [1])
