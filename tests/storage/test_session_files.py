"""The files of a session: what it is made from again, its branches, and what is damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.toy import (
    KEY,
    append,
    checkpoint,
    checkpoint_name,
    create,
    held,
    history,
    image,
    names,
    reopened,
    spec,
    vault,
)

from backwire_server.sessions.errors import CheckpointNotFound, SessionQuarantined, StorageFailed
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.disk import size_of
from backwire_server.storage.journal.segment import file_name

Arm = Callable[[str], object]


@pytest.mark.parametrize("durability", [Durability.JOURNAL, Durability.FSYNC])
def test_a_session_is_made_again_from_its_definition_and_all_mutations(tmp_path: Path, durability: Durability) -> None:
    made = create(tmp_path, durability)
    append(made, 1, 2)
    found = reopened(tmp_path)
    assert (found.created, found.key, found.durability) == (made.created, KEY, durability)
    recovery = found.recover()
    assert (recovery.image, recovery.count, history(recovery)) == (None, 2, [1, 2])
    assert found.spec().definition == spec().definition
    assert (found.spec().seed, list(found.spec().sources)) == (7, ["w"])
    assert names(tmp_path / "sessions" / "a") == [file_name(1), "manifest.json", "session.binpb"]


def test_files_may_be_opened_to_tell_about_a_session_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    other = tmp_path / "sessions" / "a" / (checkpoint_name(1) + ".tmp")
    other.write_bytes(b"so far")
    assert reopened(tmp_path).spec().seed == 7
    assert other.exists()


def test_a_new_session_may_begin_with_an_image(tmp_path: Path, arm: Arm) -> None:
    home = vault(tmp_path, max_disk_bytes=1 << 20)
    closed: list[bool] = []
    made = home.create("a", spec(), Durability.JOURNAL, KEY, image([5, 6], [lambda: closed.append(True)]))
    append(made, 7)
    assert history(reopened(tmp_path).recover()) == [5, 6, 7]
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")
    arm("definition.half=ENOSPC")
    with pytest.raises(StorageFailed):
        home.create("b", spec(), Durability.JOURNAL, KEY, image([5], [lambda: closed.append(True)]))
    assert closed == [True, True]
    assert names(tmp_path / "sessions") == ["a"]


def test_going_back_begins_at_a_checkpoint_before_the_step(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1, 2)
    assert made.rewind(1).image is None
    checkpoint(made, 1, 2)
    append(made, 3)
    checkpoint(made, 1, 2, 3)
    append(made, 4, 5)
    for step, start in ((2, 2), (3, 3), (4, 3), (5, 3), (99, 3)):
        recovery = made.rewind(step)
        assert recovery.image is not None
        assert recovery.image.state.step == start
        assert history(recovery) == [1, 2, 3, 4, 5]
    assert len(made.rewind(2).digests) == 1
    with pytest.raises(CheckpointNotFound, match="go back to step 2 or a later one"):
        made.rewind(1)


def test_going_back_does_not_begin_where_more_has_happened_since_the_step(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1, 2)
    made.checkpoint(image([1, 2], settled=False), background=False)
    assert reopened(tmp_path).rewind(3).image is not None
    with pytest.raises(CheckpointNotFound, match="go back to step 3 or a later one"):
        made.rewind(2)


def test_a_restart_makes_the_image_what_there_is_and_keeps_what_was_saved(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    made.save("best", image([1])).result()
    closed: list[bool] = []
    made.restart(image([7], [lambda: closed.append(True)]))
    assert closed == [True]
    assert history(reopened(tmp_path).recover()) == [7]
    append(made, 8)
    found = reopened(tmp_path)
    assert history(found.recover()) == [7, 8]
    assert list(found.load("best").state.parameters["w"]) == [1]
    with pytest.raises(CheckpointNotFound):
        found.rewind(0)
    assert len([name for name in names(tmp_path / "sessions" / "a") if name.startswith("checkpoint")]) == 1


def test_a_branch_shares_the_files_and_nothing_that_comes_after(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    append(made, 2)
    made.save("best", image([1, 2])).result()
    branch = made.fork("b", None)
    twig = branch.fork("c", KEY)
    append(made, 3)
    append(branch, 4)
    append(twig, 5)
    assert (branch.key, twig.key, branch.durability) == (None, KEY, Durability.JOURNAL)
    assert [history(reopened(tmp_path, name).recover()) for name in "abc"] == [[1, 2, 3], [1, 2, 4], [1, 2, 5]]
    assert [len(reopened(tmp_path, name).checkpoints()) for name in "abc"] == [2, 1, 1], "what has a name stays behind"
    linked = [tmp_path / "sessions" / name / checkpoint_name(1) for name in "abc"]
    assert {path.stat().st_ino for path in linked} == {linked[0].stat().st_ino}
    made.restart(image([]))
    assert history(reopened(tmp_path, "b").recover()) == [1, 2, 4]


def test_a_branch_that_cannot_be_made_leaves_nothing(tmp_path: Path, arm: Arm) -> None:
    home = vault(tmp_path, max_disk_bytes=1 << 20)
    made = home.create("a", spec(), Durability.JOURNAL, KEY)
    append(made, 1)
    arm("journal.append=ENOSPC")
    with pytest.raises(StorageFailed):
        made.fork("b", None)
    assert names(tmp_path / "sessions") == ["a"]
    assert home._usage.total == size_of(tmp_path / "sessions" / "a")
    append(made, 2)
    assert history(reopened(tmp_path).recover()) == [1, 2]


def test_closed_files_hold_no_descriptor_and_open_again_by_themselves(tmp_path: Path) -> None:
    made = create(tmp_path)
    before = held(tmp_path)
    append(made, 1)
    assert held(tmp_path) == before + 1
    made.close()
    made.close()
    assert held(tmp_path) == before
    append(made, 2)
    checkpoint(made, 1, 2)
    made.close()
    assert history(reopened(tmp_path).recover()) == [1, 2]


def test_what_an_interruption_left_is_removed_at_the_next_recovery(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    directory = tmp_path / "sessions" / "a"
    before = names(directory)
    for name in (
        checkpoint_name(7),
        "saved-x.safetensors",
        "saved-x.safetensors.tmp",
        "manifest.json.tmp",
        file_name(1),
    ):
        (directory / name).write_bytes(b"left")
    reopened(tmp_path).recover()
    assert names(directory) == before


@pytest.mark.parametrize("name", ["session.binpb", checkpoint_name(1), "saved-best.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "flipped"])
def test_damaged_files_are_refused_when_they_are_needed(tmp_path: Path, name: str, damage: str) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    made.save("best", image([1])).result()
    path = tmp_path / "sessions" / "a" / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "shorter" else data[:-1] + bytes([data[-1] ^ 1]))

    def use() -> None:
        found = reopened(tmp_path)
        found.spec()
        found.recover()
        found.load("best")

    with pytest.raises(SessionQuarantined, match=name.replace(".", r"\.")):
        use()


def test_the_journal_after_a_checkpoint_must_be_there(tmp_path: Path) -> None:
    made = create(tmp_path)
    append(made, 1)
    checkpoint(made, 1)
    append(made, 2)
    (tmp_path / "sessions" / "a" / file_name(2)).unlink()
    with pytest.raises(SessionQuarantined, match=file_name(2)):
        reopened(tmp_path).recover()
