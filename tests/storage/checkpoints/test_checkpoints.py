"""Checkpoints: which are written, which are kept, and what a failure leaves."""

import threading
from collections.abc import Callable
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
    mutation,
    names,
    reopened,
    spec,
    vault,
)

from backwire_server.sessions.errors import CheckpointNotFound, DiskQuotaExceeded, SessionQuarantined, StorageFailed
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.disk import size_of
from backwire_server.storage.journal.segment import file_name

Arm = Callable[[str], object]


def test_a_checkpoint_is_where_a_replay_begins(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1, 2)
    closed: list[bool] = []
    made.checkpoint(image([1, 2], [lambda: closed.append(True)]), background=False)
    assert closed == [True]
    append(made, 3)
    recovery = reopened(tmp_path).recover()
    assert (recovery.count, history(recovery)) == (1, [1, 2, 3])
    assert list(reopened(tmp_path).spec().sources) == [], "the checkpoint has the values"
    assert names(tmp_path / "sessions" / "a") == [
        checkpoint_name(2),
        file_name(3),
        "manifest.json",
        "session.binpb",
    ]


def test_a_session_is_dirty_while_records_follow_its_last_checkpoint(tmp_path: Path) -> None:
    made = create(tmp_path)
    states = [made.dirty]
    checkpoint(made)
    states.append(made.dirty)
    append(made, 1)
    states.append(made.dirty)
    checkpoint(made, 1)
    states.append(made.dirty)
    assert states == [True, False, True, False]
    assert not reopened(tmp_path).dirty


def test_a_second_checkpoint_of_the_same_record_is_not_written(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    closed: list[bool] = []
    made.checkpoint(image([99], [lambda: closed.append(True)]), background=False)
    assert closed == [True]
    assert history(reopened(tmp_path).recover()) == [1]


def test_two_checkpoints_are_kept_and_the_journal_from_the_older_on(tmp_path: Path) -> None:
    made = create(tmp_path)
    for value in range(1, 5):
        append(made, value)
        checkpoint(made, *range(1, value + 1))
    assert names(tmp_path / "sessions" / "a") == [
        checkpoint_name(3),
        checkpoint_name(4),
        file_name(4),
        file_name(5),
        "manifest.json",
        "session.binpb",
    ]
    assert [each.step for each in made.checkpoints()] == [3, 4]


def test_a_checkpoint_in_the_background_holds_what_was_true_when_it_was_asked_for(tmp_path: Path) -> None:
    home = vault(tmp_path)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1)
    closed = threading.Event()
    given = image([1], [closed.set])
    made.checkpoint(given, background=True)
    assert closed.wait(30)
    given.state.parameters["w"][0] = 77
    append(made, 2)
    made.close()
    home.close()
    recovery = reopened(tmp_path).recover()
    assert (recovery.count, history(recovery)) == (1, [1, 2])


@pytest.mark.parametrize("place", ["checkpoint.half", "checkpoint.renamed", "manifest.half", "manifest.synced"])
def test_a_checkpoint_that_cannot_be_written_changes_nothing(tmp_path: Path, arm: Arm, place: str) -> None:
    home = vault(tmp_path, max_disk_bytes=1 << 20)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1)
    checkpoint(made, 1)
    append(made, 2)
    closed: list[bool] = []
    arm(f"{place}=ENOSPC")
    with pytest.raises(StorageFailed):
        made.checkpoint(image([1, 2], [lambda: closed.append(True)]), background=False)
    arm(f"{place}=ENOSPC")
    with pytest.raises(StorageFailed):
        made.save("best", image([1, 2])).result()
    assert closed == [True]
    assert not made.broken
    assert [each.step for each in made.checkpoints()] == [1]
    append(made, 3)
    assert history(reopened(tmp_path).recover()) == [1, 2, 3]
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")


def test_files_are_broken_when_nobody_knows_which_manifest_counts(tmp_path: Path, arm: Arm) -> None:
    made = create(tmp_path)
    append(made, 1)
    arm("manifest.renamed=EIO")
    with pytest.raises(StorageFailed, match="not known"):
        made.restart(image([9]))
    assert made.broken
    with pytest.raises(StorageFailed):
        made.append(mutation(2))
    made.close()
    assert history(reopened(tmp_path).recover()) == [9]


def test_saved_checkpoints_stay_and_can_be_replaced_and_deleted(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    first = made.save("best", image([1])).result()
    append(made, 2)
    made.save("x", image([1, 2])).result()
    second = made.save("best", image([1, 2])).result()
    assert (first.step, second.step, second.name) == (1, 2, "best")
    found = reopened(tmp_path)
    assert found.checkpoints() == made.checkpoints()
    assert list(found.load("best").state.parameters["w"]) == [1, 2]
    found.delete_checkpoint("best")
    with pytest.raises(CheckpointNotFound, match="those that were saved are: x"):
        found.load("best")
    with pytest.raises(CheckpointNotFound):
        found.delete_checkpoint("best")
    assert [name for name in names(tmp_path / "sessions" / "a") if "saved" in name] == ["saved-x.safetensors"]


def test_the_digest_that_a_later_checkpoint_tells_is_known_to_who_replays(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    append(made, 2)
    digest = made.save("best", image([1, 2])).result().digest
    append(made, 3)
    assert reopened(tmp_path).recover().digests == {1: digest}


def test_the_quota_holds_for_checkpoints(tmp_path: Path) -> None:
    home = vault(tmp_path, max_disk_bytes=6000)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1)
    with pytest.raises(DiskQuotaExceeded):
        made.save("best", image(range(1000))).result()
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")
    made.save("small", image([1])).result()
    made.delete_checkpoint("small")
    made.restart(image([1]))
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")


def test_a_checkpoint_of_the_same_state_but_another_moment_is_refused(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    first, second = made.save("a", image([1])).result(), made.save("b", image([1])).result()
    assert first.digest == second.digest
    assert made.verify() == 2
    directory = tmp_path / "sessions" / "a"
    (directory / "saved-b.safetensors").write_bytes((directory / "saved-a.safetensors").read_bytes())
    with pytest.raises(SessionQuarantined, match="another checkpoint"):
        made.verify()


def test_a_checkpoint_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    made.save("a", image([1])).result()
    append(made, 2)
    made.save("b", image([1, 2])).result()
    directory = tmp_path / "sessions" / "a"
    (directory / "saved-b.safetensors").write_bytes((directory / "saved-a.safetensors").read_bytes())
    with pytest.raises(SessionQuarantined, match="another checkpoint"):
        reopened(tmp_path).load("b")
