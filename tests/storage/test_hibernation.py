"""Durable sessions that nobody uses leave the memory, by time, number and bytes, and come back as they were."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.storage.durable import SECONDS, TOUR, Disk, create, do, forward, key_of, standing, train
from tests.storage.sleeping import trained
from tests.waiting import until

from backwire_server.sessions.calls import CountResult, StepOptions
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.store import sweeper


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


def test_a_session_that_is_kept_in_memory_alone_never_goes(disk: Disk) -> None:
    disk.open(hibernate_after=0.0, max_awake_sessions=1)
    session = create(disk.store, durability=Durability.MEMORY)
    create(disk.store)
    create(disk.store)
    disk.store.sweep()
    assert not session.hibernate()
    assert session.awake
    train(1)(session, None)


def test_a_call_that_waits_while_a_session_goes_finds_it_again(disk: Disk) -> None:
    session, undisturbed = create(disk.open()), disk.undisturbed()
    expected = [do(undisturbed, name) for name in TOUR]
    stop = threading.Event()

    def send_away() -> None:
        while not stop.is_set():
            session.hibernate()

    with ThreadPoolExecutor(1) as pool:
        away = pool.submit(send_away)
        try:
            until(lambda: not session.awake)  # the thread has begun, and goes on beside the calls
            for name, answer in zip(TOUR, expected, strict=True):
                assert do(session, name) == answer
        finally:
            stop.set()
        away.result(SECONDS)
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
