"""What a durable session acknowledged is there again, with the same bits, whatever became of the memory it was in."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.storage.drawing import told
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
    train,
)

from backwire_server.sessions import errors
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.info import Home
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

JOURNAL, FSYNC = Durability.JOURNAL, Durability.FSYNC

Lose = Callable[[Disk, Session], Session]


def with_checkpoints(disk: Disk, session: Session) -> Session:
    return killed(disk, session, checkpoint_bytes=ALWAYS)


def flushed(disk: Disk, session: Session) -> Session:
    return killed(disk, session, durability=FSYNC)


def ended(disk: Disk, session: Session) -> Session:
    disk.store.close(60.0)
    return killed(disk, session)


def hibernated(_: Disk, session: Session) -> Session:
    assert session.hibernate()
    assert not session.awake
    return session


WAYS: Mapping[str, tuple[Lose, Durability, int]] = {
    "killed": (killed, JOURNAL, NEVER),
    "killed while flushing": (flushed, FSYNC, NEVER),
    "killed with checkpoints": (with_checkpoints, JOURNAL, ALWAYS),
    "ended": (ended, JOURNAL, NEVER),
    "hibernated": (hibernated, JOURNAL, NEVER),
    "hibernated with checkpoints": (hibernated, FSYNC, ALWAYS),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_acknowledged_is_there_again_after_every_kind_of_mutation(disk: Disk, way: str) -> None:
    lose, durability, checkpoint_bytes = WAYS[way]
    session, undisturbed = create(disk.open(durability, checkpoint_bytes)), disk.undisturbed()
    assert session.info().durability is durability
    for name in TOUR:
        expected = do(undisturbed, name)
        assert do(session, name) == expected, name
        session = lose(disk, session)
        assert do(session, name) == expected, f"{name}: the answer is remembered"
        assert standing(session) == standing(undisturbed), name


@pytest.mark.parametrize("way", ["killed", "ended", "hibernated"])
def test_a_request_id_that_is_remembered_takes_no_other_payload(disk: Disk, way: str) -> None:
    session = create(disk.open())
    do(session, *TOUR)
    session = WAYS[way][0](disk, session)
    before = standing(session)
    for name, mutate in TOUR.items():
        with pytest.raises(errors.RequestIdReused):
            mutate(session, RequestKey(name, b"\x02"))
    assert standing(session) == before


def test_a_lease_fences_others_after_a_restart(disk: Disk) -> None:
    session = create(disk.open())
    do(session, "attach")
    session = killed(disk, session)
    with pytest.raises(errors.WriterFenced, match="'me' is the only writer"):
        train(1)(session, None)
    with pytest.raises(errors.LeaseHeld):
        session.attach(UNBOUNDED, "you", 1.0, False)
    do(session, "train under the lease")
    assert session.attach(UNBOUNDED, "you", 1.0, True).number == 2
    with pytest.raises(errors.WriterFenced):
        session.train_step(UNBOUNDED, TrainCall({}), lease=1)


def test_passes_that_went_for_a_limit_stay_gone_and_are_known_for_it(disk: Disk) -> None:
    session = create(disk.open(max_passes=2))
    for name in "pqr":
        forward(1, name)(session, None)
    before = standing(session)
    assert before.passes == ("q", "r")
    session = killed(disk, session, max_passes=2)
    assert standing(session) == before
    with pytest.raises(errors.PassExpired):
        backward("p")(session, None)
    session = killed(disk, session, max_passes=1)
    assert standing(session).passes == ("r",)
    backward("r")(session, None)
    undisturbed = disk.undisturbed()
    for name in "pqr":
        forward(1, name)(undisturbed, None)
    backward("r")(undisturbed, None)
    assert session.digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)


def test_threads_that_train_many_sessions_of_which_one_stays_in_memory_get_the_same_bits(disk: Disk) -> None:
    store, undisturbed = disk.open(max_awake_sessions=1), disk.undisturbed()
    expected = [told(train(number)(undisturbed, None)) for number in range(5)]
    ids = [create(store).session_id for _ in range(4)]

    def run(session_id: str) -> list[Any]:
        return [told(train(number)(store.get(session_id), None)) for number in range(5)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, ids)) == [expected] * 4
    digests = {disk.open().get(session_id).digest(UNBOUNDED) for session_id in ids}
    assert digests == {undisturbed.digest(UNBOUNDED)}


def test_sessions_are_listed_in_the_order_of_their_creation_after_a_restart(disk: Disk) -> None:
    store = disk.open()
    made = [create(store) for _ in range(4)]
    ids = [session.session_id for session in made]
    do(made[1], "train", "forward p", "backward p")
    assert made[2].hibernate()
    again = disk.open()
    assert [info.session_id for info in again.list().sessions] == ids
    assert [(info.step, info.contributions) for info in again.list().sessions] == [(0, 0), (1, 1), (0, 0), (0, 0)]
    assert [info.created for info in again.list().sessions] == [session.info().created for session in made]
    assert again.census == (4, 4)


def test_a_creation_and_a_deletion_are_remembered_by_their_ids_over_restarts(disk: Disk) -> None:
    store = disk.open()
    first, second = (create(store, key=key_of(name)).session_id for name in ("first", "second"))
    branch = store.fork(UNBOUNDED, second, key_of("branch")).session_id
    store.delete(UNBOUNDED, first, key_of("delete"))
    for again in (disk.open(), disk.open()):
        assert create(again, key=key_of("second")).session_id == second
        assert again.fork(UNBOUNDED, second, key_of("branch")).session_id == branch
        again.delete(UNBOUNDED, first, key_of("delete"))
        with pytest.raises(errors.SessionNotFound):
            again.delete(UNBOUNDED, first, key_of("another"))
        with pytest.raises(errors.RequestIdReused):
            create(again, key=RequestKey("second", b"\x02"))
        assert [info.session_id for info in again.list().sessions] == [second, branch]


def test_processes_that_share_a_directory_have_each_its_own_sessions(disk: Disk) -> None:
    ids = {create(disk.open(home=Home(index=index, count=3))).session_id for index in range(3) for _ in range(3)}
    found = [[info.session_id for info in disk.open(home=Home(index=at, count=2)).list().sessions] for at in range(2)]
    assert len(ids) == 9
    assert sorted(found[0] + found[1]) == sorted(ids)
