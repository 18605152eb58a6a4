"""Looking on at durable sessions: what their steps gave is no part of them, and those that are asleep sleep on."""

from tests.storage.durable import Disk, create, do, standing

from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.status import SessionState


def test_a_session_that_is_asleep_is_told_and_sleeps_on(disk: Disk) -> None:
    session = create(disk.open())
    do(session, "train")
    assert session.hibernate()
    (status,) = disk.store.overview().sessions
    assert (status.state, status.step, status.steps, status.nbytes) == (SessionState.ASLEEP, 1, 1, 0)
    assert status.loss is not None
    assert [each.step for each in disk.store.look(session.session_id).history.since()[0]] == [1]
    found = disk.store.overview()
    assert (session.awake, found.awake, found.nbytes) == (False, 0, 0)


def test_what_steps_gave_is_no_part_of_the_session(disk: Disk) -> None:
    session = create(disk.open())
    do(session, "train")
    before = standing(session)
    cursor = session.history.since()[1]
    again = disk.open().get(session.session_id)
    assert standing(again) == before
    assert again.history.since(cursor) == ([], "")
    do(again, "train again")
    records, _ = again.history.since(cursor)
    assert [each.step for each in records] == [2], "a cursor of before the restart gives all"


def test_a_replay_does_no_steps(disk: Disk) -> None:
    session = create(disk.open())
    do(session, "train")
    session.shut()
    assert not session.awake
    session.wake(UNBOUNDED)
    assert (session.status().step, session.history.steps) == (1, 1)
