"""A long computation gives way to those who wait, and a call that ends takes nothing along."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.sessions.asking import SECONDS, Asking, Clock
from tests.waiting import until

from backwire_server.engine.stopping import Stopped
from backwire_server.sessions.errors import Cancelled
from backwire_server.sessions.turns import processors
from backwire_server.sessions.turns.processors import Processors

pytestmark = pytest.mark.usefixtures("patient")


def test_a_long_computation_gives_way_between_kernels_and_goes_on(pool: ThreadPoolExecutor) -> None:
    shared, long = Processors(1), Asking("long")
    begun, done = threading.Event(), list[str]()

    def compute() -> None:
        with shared.turn(long) as stop:
            begun.set()
            while not done:  # kernel after kernel
                if stop.wanted:
                    stop.heed()
            done.append("long")

    def visit() -> None:
        with shared.turn(Asking("short")):
            until(lambda: shared.waiting == 1)
            done.append("short")

    running = pool.submit(compute)
    assert begun.wait(SECONDS)
    pool.submit(visit).result(SECONDS)
    running.result(SECONDS)
    assert done == ["short", "long"]
    assert long.spent.queue > 0, "giving way is waiting"


def test_computations_of_one_tenant_take_turns_too(pool: ThreadPoolExecutor) -> None:
    shared, done = Processors(1), list[str]()
    begun = threading.Event()

    def compute() -> None:
        with shared.turn(Asking()) as stop:
            begun.set()
            while not done:
                if stop.wanted:
                    stop.heed()

    running = pool.submit(compute)
    assert begun.wait(SECONDS)
    with shared.turn(Asking()):
        done.append("short")
    running.result(SECONDS)


def test_a_tenant_that_has_nothing_computing_does_not_wait_for_a_long_kernel(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "PATIENCE", 0.02)
    shared, end, begun = Processors(1), threading.Event(), threading.Event()

    def compute() -> None:
        with shared.turn(Asking("long")):
            begun.set()
            assert end.wait(SECONDS)  # a kernel that looks at nothing

    running = pool.submit(compute)
    assert begun.wait(SECONDS)
    with shared.turn(Asking("other")):
        assert not running.done()
    end.set()
    running.result(SECONDS)
    with shared.turn(Asking("long")):
        pass
    assert not shared._running
    assert shared._free == 1


def test_who_comes_for_a_moment_begins_before_another_has_given_way(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    shared, end = Processors(1, clock), threading.Event()

    def compute(tenant: str) -> None:
        with shared.turn(Asking(tenant)) as stop:
            assert end.wait(SECONDS)  # a kernel that looks at nothing
            if stop.wanted:
                stop.heed()

    long = pool.submit(compute, "long")
    until(lambda: len(shared._running) == 1)
    clock.now += 1.0
    first = pool.submit(compute, "first")
    until(lambda: len(shared._running) == 2)
    clock.now += 1.0
    second = pool.submit(compute, "second")
    until(lambda: shared.waiting == 1)
    assert len(shared._running) == 2, "no more than twice as many as should be"
    end.set()
    for each in (long, first, second):
        each.result(SECONDS)
    assert (shared.waiting, shared._free, shared._running) == (0, 1, set())


def test_who_waits_behind_others_of_its_tenant_need_not_look_to_be_next(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "LOOK", 100 * SECONDS)
    shared, end, done = Processors(1), threading.Event(), list[int]()

    def compute(number: int) -> None:
        with shared.turn(Asking()):
            assert end.wait(SECONDS)
            done.append(number)

    waiting = []
    for number in range(8):
        waiting.append(pool.submit(compute, number))
        until(lambda: shared.waiting + len(shared._running) == len(waiting))
    end.set()
    for each in waiting:
        each.result(SECONDS)
    assert done == list(range(8))


@pytest.mark.parametrize("giving_way", [False, True])
def test_a_caller_that_goes_while_it_waits_takes_nothing_along(pool: ThreadPoolExecutor, giving_way: bool) -> None:
    shared, end, going = Processors(1, Clock()), threading.Event(), Asking("b")  # nobody is ahead

    def hold() -> None:
        with shared.turn(Asking("a")):
            assert end.wait(SECONDS)

    def leave() -> None:
        with shared.turn(going) as stop:
            if giving_way:
                holder.append(pool.submit(hold))
                until(lambda: shared.waiting)
                stop.press()
                stop.heed()

    holder = []
    if not giving_way:
        holder.append(pool.submit(hold))
        until(lambda: shared._running)
    leaving = pool.submit(leave)
    until(lambda: holder and shared.waiting == 1 and next(iter(shared._running)).scope is not going)
    going.gone = True
    with pytest.raises(Cancelled):
        leaving.result(SECONDS)
    end.set()
    holder[0].result(SECONDS)
    assert (shared.waiting, shared._free, shared._running) == (0, 1, set())


def test_a_call_that_is_over_stops_rather_than_give_way() -> None:
    shared, over = Processors(1), Asking()
    with shared.turn(over) as stop:
        stop.end()
        stop.press()
        with pytest.raises(Stopped):
            stop.heed()
        assert stop.wanted
    assert shared._free == 1
