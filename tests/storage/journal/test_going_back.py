"""A session goes back to any step and checkpoint that is kept, exactly, and goes on from there with the same bits."""

from collections.abc import Callable

import pytest
from tests.storage.durable import (
    ALWAYS,
    NEVER,
    TOUR,
    Disk,
    backward,
    create,
    do,
    forward,
    key_of,
    killed,
    standing,
    step,
    train,
)

from backwire_server.sessions import errors
from backwire_server.sessions.calls import CheckpointInfo
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

STEPS = 6
BETWEEN, AMIDST = "right after a step", "in the middle of one"


def one_step(session: Session, number: int, halfway: Callable[[], object] = lambda: None) -> str:
    """Does what leads to the next step, and returns the digest right after it.

    A pass that nobody differentiates, so that random numbers differ; several contributions, and values that are set.
    """
    forward(number, f"unused {number}")(session, None)
    halfway()
    if number % 2:
        train(number)(session, None)
        return session.digest(UNBOUNDED)
    forward(number, f"p {number}")(session, None)
    backward(f"p {number}", retain=True)(session, None)
    TOUR["set parameters"](session, None)
    backward(f"p {number}", weight=2.0)(session, None)
    step()(session, None)
    return session.digest(UNBOUNDED)


def steps(session: Session, start: int = 0) -> list[str]:
    """The digests right after all steps that follow."""
    return [one_step(session, number) for number in range(start, STEPS)]


def rewind(session: Session, to: int, key: RequestKey | None = None) -> CheckpointInfo:
    return session.restore_checkpoint(UNBOUNDED, "", to, key)


def restore(session: Session, name: str, key: RequestKey | None = None, lease: int = 0) -> CheckpointInfo:
    return session.restore_checkpoint(UNBOUNDED, name, None, key, lease=lease)


def branch(disk: Disk, session: Session) -> Session:
    return disk.store.get(disk.store.fork(UNBOUNDED, session.session_id).session_id)


@pytest.fixture
def digests(disk: Disk) -> list[str]:
    """That of every step, of a session that never went back."""
    session = disk.undisturbed()
    return [session.digest(UNBOUNDED), *steps(session)]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("hibernating", "first"),
    [
        ([], 0),
        ([(0, BETWEEN)], 1),
        ([(2, AMIDST)], 3),
        ([(2, BETWEEN), (3, AMIDST)], 3),
        ([(2, BETWEEN), (3, AMIDST), (5, AMIDST)], 4),
        ([(1, AMIDST), (2, BETWEEN), (3, BETWEEN)], 3),
    ],
)
def test_every_step_since_the_oldest_checkpoint_can_be_gone_back_to_and_on_from(
    disk: Disk, digests: list[str], hibernating: list[tuple[int, str]], first: int, restarted: bool
) -> None:
    session = create(disk.open())
    for number in range(STEPS):
        amidst = session.hibernate if (number, AMIDST) in hibernating else lambda: None
        assert one_step(session, number, amidst) == digests[number + 1]
        if (number, BETWEEN) in hibernating:
            assert session.hibernate()
    if restarted:
        session = killed(disk, session)
    for to in range(first, STEPS + 1):
        other = branch(disk, session)
        answer = rewind(other, to)
        assert (answer.name, answer.step, answer.digest) == ("", to, digests[to])
        found = standing(other)
        assert (found.digest, found.step, found.contributions, found.passes) == (digests[to], to, 0, ())
        assert steps(other, to) == digests[to + 1 :]
    for to in (*range(first), STEPS + 1):
        before = standing(session)
        with pytest.raises(errors.CheckpointNotFound) as caught:
            rewind(session, to)
        assert caught.value.field == "step"
        assert standing(session) == before


def test_a_session_that_went_back_is_there_after_a_restart_and_has_no_way_forward(
    disk: Disk, digests: list[str]
) -> None:
    session = create(disk.open())
    steps(session)
    rewind(session, 4)
    session = killed(disk, session)
    assert session.digest(UNBOUNDED) == digests[4]
    for to in (3, 5):
        with pytest.raises(errors.CheckpointNotFound):
            rewind(session, to)
    assert rewind(session, 4).digest == digests[4]
    assert steps(session, 4) == digests[5:]
    assert steps(killed(disk, session), STEPS) == []
    assert rewind(session, 5).digest == digests[5]


@pytest.mark.parametrize("checkpoint_bytes", [ALWAYS, NEVER])
def test_a_saved_checkpoint_is_gone_back_to_with_all_that_was_accumulated(disk: Disk, checkpoint_bytes: int) -> None:
    session, undisturbed = create(disk.open(checkpoint_bytes=checkpoint_bytes)), disk.undisturbed()
    for each in (session, undisturbed):
        do(each, *list(TOUR)[:7])
    saved, then = session.save_checkpoint(UNBOUNDED, "best"), standing(undisturbed)
    assert (saved.name, saved.step, saved.digest, then.contributions) == ("best", then.step, then.digest, 2)
    expected = one_step(undisturbed, 8)
    for number in range(3):
        assert one_step(session, 8) == expected
        lease = session.attach(UNBOUNDED, "me", 60.0, False).number
        with pytest.raises(errors.WriterFenced):
            restore(session, "best")
        answer = restore(session, "best", lease=lease)
        assert (answer.name, answer.digest, answer.step) == ("best", then.digest, then.step)
        if number:
            session = killed(disk, session, checkpoint_bytes=checkpoint_bytes)
        found = standing(session)
        assert (found.digest, found.contributions, found.passes) == (then.digest, 2, ())
        assert found.lease is not None, "it stays whatever the checkpoint had"
        session.detach(UNBOUNDED, lease)


def test_what_was_asked_for_before_is_remembered_after_going_back_and_over_a_restart(disk: Disk) -> None:
    session = create(disk.open())
    first = do(session, "train")
    saved = session.save_checkpoint(UNBOUNDED, "best", key_of("save"))
    again = do(session, "train again")
    answer = restore(session, "best", key_of("back"))
    train(5)(session, None)
    before = standing(session)
    for found in (session, killed(disk, session)):
        assert found.save_checkpoint(UNBOUNDED, "best", key_of("save")) == saved
        assert restore(found, "best", key_of("back")) == answer
        assert (do(found, "train"), do(found, "train again")) == (first, again)
        with pytest.raises(errors.RequestIdReused):
            rewind(found, 0, RequestKey("back", b"\x02"))
        assert standing(found) == before


def test_going_back_fails_as_a_whole(disk: Disk, arm: Callable[[str], object]) -> None:
    session = create(disk.open())
    steps(session)
    session.save_checkpoint(UNBOUNDED, "best")
    one_step(session, STEPS)
    before, used = standing(session), disk.store.budget.used
    for place in ("segment.created", "checkpoint.begun", "checkpoint.half", "checkpoint.renamed", "manifest.half"):
        arm(f"{place}=ENOSPC")
        with pytest.raises(errors.StorageFailed):
            restore(session, "best")
        assert (standing(session), disk.store.budget.used) == (before, used), place
    assert standing(killed(disk, session)) == before
    rewind(disk.store.get(session.session_id), 2)


def test_saved_checkpoints_are_listed_replaced_and_deleted_over_restarts(disk: Disk) -> None:
    session = create(disk.open())
    found = []
    for number, name in enumerate(("one", "two", "one")):
        train(number)(session, None)
        found.append(session.save_checkpoint(UNBOUNDED, name))
    _, two, one = found
    session = killed(disk, session)
    assert session.checkpoints(UNBOUNDED) == [two, one]
    session.delete_checkpoint(UNBOUNDED, "two", key_of("delete"))
    session = killed(disk, session)
    assert session.checkpoints(UNBOUNDED) == [one]
    assert session.delete_checkpoint(UNBOUNDED, "two", key_of("delete")).count == 1
    with pytest.raises(errors.CheckpointNotFound, match="those that were saved are: one"):
        restore(session, "two")
    assert restore(session, "one").digest == one.digest


def test_what_is_kept_in_memory_alone_does_not_go_back(disk: Disk) -> None:
    session = disk.undisturbed()
    do(session, "train")
    before = standing(session)
    with pytest.raises(errors.NotDurable):
        rewind(session, 0)
    with pytest.raises(errors.NotDurable):
        restore(session, "best")
    assert standing(session) == before
    assert session.checkpoints(UNBOUNDED) == []
