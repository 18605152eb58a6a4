"""Turns are granted in order, and waiting for one ends with the call that waits."""

import threading
import time
from functools import partial
from typing import Any

import pytest
from tests.waiting import until

from backwire_server.sessions.errors import Cancelled, DeadlineExceeded
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.turns.locks import FairLock, KeyedLocks, Signal


def waiting(lock: FairLock, count: int) -> bool:
    return len(lock._waiting) == count


def test_waiters_get_their_turn_in_the_order_of_asking() -> None:
    lock, order = FairLock(), []

    def work(number: int) -> None:
        with lock.hold(UNBOUNDED):
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    with lock.hold(UNBOUNDED):
        for number, thread in enumerate(threads):
            thread.start()
            until(partial(waiting, lock, number + 1))
        assert order == []
    for thread in threads:
        thread.join()
    assert order == list(range(10))


def test_only_one_holds_it_at_a_time() -> None:
    lock, inside, most = FairLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with lock.hold(UNBOUNDED):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert lock.try_acquire()


@pytest.mark.parametrize(("settings", "error"), [({"seconds": 0.0}, DeadlineExceeded), ({"checks": 1}, Cancelled)])
def test_a_waiter_whose_call_ends_leaves_the_queue(scope: Any, settings: Any, error: type[Exception]) -> None:
    lock = FairLock()
    with lock.hold(UNBOUNDED):
        with pytest.raises(error), lock.hold(scope(**settings)):
            raise AssertionError("never reached")
        assert not lock._waiting
    assert lock.try_acquire()


def test_a_turn_that_comes_as_its_waiter_gives_up_goes_to_the_next() -> None:
    lock = FairLock()

    class Late(Unbounded):
        def remaining(self) -> float:
            return 0.0

        def check(self) -> None:
            lock.release()  # the turn is granted just now
            raise Cancelled("gone")

    lock.try_acquire()
    with pytest.raises(Cancelled), lock.hold(Late()):
        raise AssertionError("never reached")
    assert lock.try_acquire(), "the turn must not be lost"


def test_an_exception_in_the_block_releases_the_lock() -> None:
    lock = FairLock()
    with pytest.raises(KeyError), lock.hold(UNBOUNDED):
        raise KeyError
    assert lock.try_acquire()


def test_keyed_locks_keep_only_equal_keys_apart_and_leave_nothing_behind() -> None:
    locks, seen = KeyedLocks(), []

    def work() -> None:
        with locks.hold("a", UNBOUNDED):
            seen.append("second a")

    thread = threading.Thread(target=work)
    with locks.hold("a", UNBOUNDED):
        thread.start()
        until(lambda: locks._locks["a"][1] == 2)
        with locks.hold("b", UNBOUNDED):
            seen.append("b")
        seen.append("first a")
    thread.join()
    assert seen == ["b", "first a", "second a"]
    assert not locks._locks


class TestASignal:
    def test_wakes_all_who_wait_and_later_ones_go_on_at_once(self) -> None:
        signal, woken = Signal(), []

        def wait(number: int) -> None:
            signal.wait(0, UNBOUNDED)
            woken.append(number)

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(signal._waiting) == 4)
        assert woken == []
        signal.tell()
        for thread in threads:
            thread.join()
        assert sorted(woken) == [0, 1, 2, 3]
        signal.wait(0, UNBOUNDED)
        assert (signal.count, signal._waiting) == (1, [])

    @pytest.mark.parametrize(("settings", "error"), [({"seconds": 0.0}, DeadlineExceeded), ({"checks": 1}, Cancelled)])
    def test_is_left_by_who_waits_no_more(self, scope: Any, settings: Any, error: type[Exception]) -> None:
        signal = Signal()
        with pytest.raises(error):
            signal.wait(0, scope(**settings))
        assert signal._waiting == []
