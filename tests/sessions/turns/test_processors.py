"""What computes takes turns: tenants get equal shares of time, and who comes for a moment need not wait for long."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.sessions.asking import SECONDS, Asking, Clock
from tests.waiting import until

from backwire_server.sessions.turns.processor_turn import Turn
from backwire_server.sessions.turns.processors import WRITING, Processors

pytestmark = pytest.mark.usefixtures("patient")


def test_so_many_compute_at_a_time_and_no_more(pool: ThreadPoolExecutor) -> None:
    shared, most, inside, lock = Processors(2), 0, 0, threading.Lock()

    def compute(_: int) -> None:
        nonlocal most, inside
        with shared.turn(Asking()):
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.001)
            with lock:
                inside -= 1

    list(pool.map(compute, range(100)))
    assert most == 2
    assert (shared.waiting, inside) == (0, 0)


def test_the_time_that_processors_were_in_use_counts_what_has_ended_and_what_goes_on() -> None:
    clock = Clock()
    processors = Processors(2, clock)
    with processors.turn(Asking()):
        clock.now += 2.0
        with processors.turn(Asking("b")):
            clock.now += 1.0
            assert processors.used == pytest.approx(4.0)
    clock.now += 5.0
    assert processors.used == pytest.approx(4.0)
    assert processors.count == 2


def test_the_tenant_that_has_used_least_comes_next(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    shared, order = Processors(1, clock), list[str]()

    def compute(tenant: str, seconds: float) -> None:
        with shared.turn(Asking(tenant)):
            order.append(tenant)
            clock.now += seconds

    with shared.turn(Asking("greedy")):
        waiting = []
        for tenant, seconds in (("greedy", 5.0), ("greedy", 5.0), ("modest", 1.0), ("modest", 1.0), ("modest", 1.0)):
            waiting.append(pool.submit(compute, tenant, seconds))
            until(lambda: shared.waiting == len(waiting))
        clock.now += 0.001
    for each in waiting:
        each.result(SECONDS)
    assert order == ["modest", "greedy", "modest", "modest", "greedy"]


def test_who_comes_back_has_not_saved_up_time(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    shared, order = Processors(1, clock), list[str]()

    def compute(tenant: str) -> None:
        with shared.turn(Asking(tenant)):
            order.append(tenant)
            clock.now += 1.0

    for _ in range(5):
        compute("busy")
    order.clear()
    with shared.turn(Asking("busy")):
        waiting = []
        for tenant in ("back", "back", "back", "busy", "busy", "busy"):
            waiting.append(pool.submit(compute, tenant))
            until(lambda: shared.waiting == len(waiting))
    for each in waiting:
        each.result(SECONDS)
    assert sorted(order[:2]) == sorted(order[2:4]) == ["back", "busy"], "by turns, as if it had never been away"


def test_one_that_is_excused_goes_on_without_a_processor(pool: ThreadPoolExecutor) -> None:
    processors = Processors(1)
    with processors.turn(Asking()):
        waiting = processors.turn(Asking())
        entered = pool.submit(waiting.__enter__)
        while not processors.waiting:
            threading.Event().wait(0.001)
        waiting.excuse()
        entered.result(SECONDS)
        assert (waiting.held, processors.waiting) == (False, 0)
        waiting.__exit__()
    with waiting.anew():
        pass


def test_tenants_pay_for_the_calls_that_are_computed_for_them() -> None:
    now = 0.0
    processors = Processors(1, clock=lambda: now)
    with processors.turn(Asking("a")) as stop:
        assert isinstance(stop.turn, Turn)
        stop.turn.payers = ["a", "b", "b", "b"]
        now = 4.0
    assert {name: each.used for name, each in processors._tenants.items()} == {"a": 1.0, "b": 3.0}


def test_one_that_writes_for_long_loses_its_processor_and_goes_on_without(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    shared, entered = Processors(1, clock), threading.Event()

    def compute() -> None:
        with shared.turn(Asking()):
            entered.set()

    with shared.turn(Asking()) as stop:
        assert isinstance(stop.turn, Turn)
        waiting = pool.submit(compute)
        until(lambda: shared.waiting == 1)
        stop.turn.writes = clock.now
        clock.now += WRITING - 0.01
        assert not entered.wait(0.05)
        clock.now += 0.02
        waiting.result(SECONDS)
        assert not stop.turn.held
    with shared.turn(Asking()) as stop:
        assert isinstance(stop.turn, Turn)
        assert stop.turn.held
    assert shared._free == 1


def test_one_that_lost_its_processor_gives_way_to_others_of_its_tenant(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    shared = Processors(2, clock)

    def compute() -> None:
        with shared.turn(Asking("visitor")):
            pass

    with shared.turn(Asking("long")):
        clock.now += 10.0
    with shared.turn(Asking()) as stop, shared.turn(Asking("long")):
        writing = stop.turn
        assert isinstance(writing, Turn)
        writing.writes = clock.now
        clock.now += 2 * WRITING
        with shared.turn(Asking("visitor")):
            waiting = pool.submit(compute)
            until(lambda: not writing.held)
        waiting.result(SECONDS)
        with shared.turn(Asking()):
            giving_way = pool.submit(stop.heed)
            until(lambda: shared.waiting == 1)
        giving_way.result(SECONDS)
        assert writing.held
    assert (shared._free, shared._running) == (2, set())
