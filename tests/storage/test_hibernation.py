"""Durable sessions that nobody uses leave the memory, by time, number and bytes, and come back as they were."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from tests.storage.durable import SECONDS, TOUR, Disk, create, do, forward, key_of, standing, train
from tests.waiting import until

from backwire_server.sessions import errors, sweeper
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.calls import CountResult, StepOptions
from backwire_server.sessions.durable import Durability
from backwire_server.sessions.history import SHORT
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.maker import SessionMaker
from backwire_server.sessions.processors import Processors
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.storage.vault import FileVault


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path) as made:
        yield made


def trained(disk: Disk) -> Session:
    """A session in the store, with passes, contributions and a lease."""
    session = create(disk.store)
    do(session, *TOUR)
    return session


def awake(*sessions: Session) -> list[bool]:
    return [session.awake for session in sessions]


class TestIdleSessions:
    def test_go_after_their_time_and_come_back_on_their_next_call(self, disk: Disk) -> None:
        disk.open(hibernate_after=0.0)
        session, undisturbed = trained(disk), disk.undisturbed()
        do(undisturbed, *TOUR)
        before = disk.store.budget.used
        disk.store.sweep()
        assert (session.awake, disk.store.budget.used) == (False, 0)
        assert standing(session) == standing(undisturbed)
        assert (session.awake, disk.store.budget.used) == (True, before)

    def test_stay_while_they_are_used_lately(self, disk: Disk) -> None:
        session = create(disk.open(hibernate_after=3600.0))
        disk.store.sweep()
        assert session.awake

    def test_tell_what_they_are_without_coming_back(self, disk: Disk) -> None:
        disk.open()
        session = trained(disk)
        before = session.info()
        assert session.hibernate()
        found = session.info()
        assert (found.step, found.contributions, found.forward_ids) == (
            before.step,
            before.contributions,
            before.forward_ids,
        )
        assert found.lease == before.lease
        assert found.parameters == before.parameters
        [listed] = disk.store.list().sessions
        assert (listed.session_id, listed.optimizer) == (session.session_id, before.optimizer)
        assert not session.awake

    def test_go_by_a_thread(self, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.01)
        session = create(disk.open(hibernate_after=0.02))
        until(lambda: not session.awake)

    def test_write_nothing_when_they_have_not_changed(self, disk: Disk) -> None:
        disk.open()
        session = trained(disk)
        assert session.hibernate()
        before = disk.files()
        session.digest(UNBOUNDED)
        assert session.hibernate()
        assert disk.files() == before

    def test_stay_in_memory_while_they_cannot_be_written(self, disk: Disk, arm: Callable[[str], object]) -> None:
        disk.open(hibernate_after=0.0)
        session, undisturbed = trained(disk), disk.undisturbed()
        do(undisturbed, *TOUR)
        arm("checkpoint.half=ENOSPC")
        disk.store.sweep()
        assert session.awake
        assert standing(session) == standing(undisturbed)
        disk.store.sweep()
        assert not session.awake

    def test_expire_passes_also_while_they_are_away(self, disk: Disk) -> None:
        session = create(disk.open(pass_ttl=1e-9))
        forward(1, "p")(session, None)
        assert session.hibernate()
        assert session.info().forward_ids == ()


SHARED = (type, FunctionType, ModuleType, Enum, Budget, FileVault, Limits, Processors, SessionMaker)
"""What sessions have in common with others."""


def own_bytes(session: Session) -> int:
    """The bytes of all that a session refers to, and no other does."""
    seen, pending, total = set(), [session], 0
    while pending:
        each = pending.pop()
        if id(each) not in seen and not isinstance(each, SHARED):
            seen.add(id(each))
            total += sys.getsizeof(each)
            pending += gc.get_referents(each)
    return total


def test_a_session_that_sleeps_takes_little_memory(disk: Disk) -> None:
    session = create(disk.open())
    train(1)(session, None)
    assert own_bytes(session) > 8_000
    assert session.hibernate()
    assert own_bytes(session) < 4_000


def test_histories_of_those_that_sleep_for_longest_are_shortened(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "LONG_HISTORIES", 1)
    sessions = [create(disk.open()), *(create(disk.store) for _ in range(2))]
    for session in sessions:
        for number in range(SHORT + 4):
            train(number)(session, None)
    assert all(session.hibernate() for session in sessions[:2])
    disk.store.sweep()
    assert [len(session.history.since()[0]) for session in sessions] == [SHORT, SHORT + 4, SHORT + 4]


def test_a_session_that_is_kept_in_memory_alone_never_goes(disk: Disk) -> None:
    disk.open(hibernate_after=0.0, max_awake_sessions=1)
    session = create(disk.store, durability=Durability.MEMORY)
    create(disk.store)
    create(disk.store)
    disk.store.sweep()
    assert not session.hibernate()
    assert session.awake
    train(1)(session, None)


class TestTooManySessions:
    def test_send_the_one_away_that_was_not_used_for_the_longest_time(self, disk: Disk) -> None:
        made = [create(disk.open(max_awake_sessions=2)), *(create(disk.store) for _ in range(3))]
        a, b, c, d = made
        assert awake(a, b, c, d) == [False, False, True, True]
        train(1)(disk.store.get(a.session_id), None)
        assert awake(a, b, c, d) == [True, False, False, True]
        disk.store.get(d.session_id)
        train(1)(disk.store.get(b.session_id), None)
        assert awake(a, b, c, d) == [False, True, False, True]

    def test_come_back_as_they_were(self, disk: Disk) -> None:
        disk.open(max_awake_sessions=1)
        one, other, undisturbed = create(disk.store), create(disk.store), disk.undisturbed()
        for name in TOUR:
            expected = do(undisturbed, name)
            for session in (one, other):
                found = disk.store.get(session.session_id)
                assert do(found, name) == expected, name
            assert awake(one, other) == [False, True]
        assert standing(one) == standing(other) == standing(undisturbed)

    def test_pass_over_one_that_is_busy(self, disk: Disk) -> None:
        disk.open(max_awake_sessions=2, hibernate_after=0.0)
        busy, idle = create(disk.store), create(disk.store)
        with busy.my_turn(UNBOUNDED):
            create(disk.store)
            assert awake(busy, idle) == [True, False]
            disk.store.sweep()
            assert busy.awake
        disk.store.sweep()
        assert not busy.awake

    def test_leave_the_one_alone_that_is_about_to_be_used(self, disk: Disk) -> None:
        busy = create(disk.open(max_awake_sessions=1))
        with busy.my_turn(UNBOUNDED):
            session = create(disk.store)
            assert disk.store.get(session.session_id).awake
        disk.store.get(session.session_id)
        assert awake(busy, session) == [False, True]


class TestTheByteBudget:
    @pytest.fixture
    def cost(self, disk: Disk) -> int:
        """The bytes of a session of the network in memory."""
        create(disk.open())
        return disk.store.budget.used

    def test_has_idle_sessions_go_for_one_that_is_new(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=3 * cost)
        made = [create(disk.store) for _ in range(5)]
        assert awake(*made) == [False, False, True, True, True]
        assert disk.store.budget.used == 3 * cost

    def test_has_idle_sessions_go_for_one_that_comes_back(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=2 * cost)
        made = [create(disk.store) for _ in range(3)]
        digests = {disk.store.get(session.session_id).digest(UNBOUNDED) for session in made}
        assert len(digests) == 1
        assert awake(*made) == [False, True, True]
        assert disk.store.budget.used == 2 * cost

    def test_has_idle_sessions_go_for_a_pass(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=2 * cost + 100)  # while it is computed it takes a little more than a session
        idle, session = create(disk.store), create(disk.store)
        forward(1, "p")(session, None)
        assert awake(idle, session) == [False, True]
        assert cost < disk.store.budget.used <= 2 * cost

    def test_has_idle_sessions_go_for_a_branch(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=2 * cost)
        idle, session = create(disk.store), create(disk.store)
        disk.store.fork(UNBOUNDED, session.session_id)
        assert awake(idle, session) == [False, True]

    def test_refuses_when_all_are_busy_and_leaves_them_as_they_are(self, disk: Disk, cost: int) -> None:
        busy = create(disk.open(max_total_bytes=cost))
        do(busy, "attach")
        before, files = standing(busy), disk.files()
        used = disk.store.budget.used
        with busy.my_turn(UNBOUNDED), pytest.raises(errors.OutOfMemory):
            create(disk.store)
        assert (standing(busy), disk.files(), disk.store.budget.used) == (before, files, used)
        assert create(disk.store).awake
        assert not busy.awake

    def test_refuses_a_session_that_comes_back_as_long_as_there_is_no_room(self, disk: Disk, cost: int) -> None:
        away, busy = create(disk.open(max_total_bytes=cost)), create(disk.store)
        with busy.my_turn(UNBOUNDED), pytest.raises(errors.OutOfMemory):
            away.digest(UNBOUNDED)
        away.digest(UNBOUNDED)
        assert awake(away, busy) == [True, False]

    def test_is_whole_again_when_all_are_closed(self, disk: Disk, cost: int) -> None:
        disk.open(max_total_bytes=100 * cost, max_awake_sessions=3)
        made = [create(disk.store) for _ in range(3)]
        for session in made:
            do(session, *TOUR)
            branch = disk.store.fork(UNBOUNDED, session.session_id).session_id
            train(1)(disk.store.get(branch), None)
        made[1].hibernate()
        for info in disk.store.list().sessions:
            disk.store.delete(UNBOUNDED, info.session_id)
        assert disk.store.budget.used == 0
        assert disk.files() == {}

    def test_is_whole_again_when_all_hibernate(self, disk: Disk) -> None:
        disk.open(hibernate_after=0.0)
        session = trained(disk)
        disk.store.fork(UNBOUNDED, session.session_id)
        disk.store.sweep()
        assert disk.store.budget.used == 0


def test_a_call_that_waits_while_a_session_goes_finds_it_again(disk: Disk) -> None:
    session, undisturbed = create(disk.open()), disk.undisturbed()
    expected = [do(undisturbed, name) for name in TOUR]
    stop = threading.Event()

    def send_away() -> int:
        count = 0
        while not stop.is_set():
            count += session.hibernate()
        return count

    with ThreadPoolExecutor(1) as pool:
        away = pool.submit(send_away)
        try:
            for name, answer in zip(TOUR, expected, strict=True):
                assert do(session, name) == answer
        finally:
            stop.set()
        assert away.result(SECONDS) > 0
    assert standing(session) == standing(undisturbed)


def test_a_step_that_waits_for_contributions_waits_on_while_its_session_is_away(disk: Disk) -> None:
    session = create(disk.open())
    forward(1, "p")(session, None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.step, UNBOUNDED, StepOptions(after_contributions=1), key_of("step"))
        while not session.hibernate():
            pass
        do(session, "forward q", "backward q")
        assert waiting.result(SECONDS).contributions == 1
    assert session.zero_gradients(UNBOUNDED) == CountResult(0)
