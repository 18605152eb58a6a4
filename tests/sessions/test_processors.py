"""What computes takes turns: tenants get equal shares of time, and who comes for a moment need not wait for long."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.waiting import until

from backwire_server.engine.stopping import Stopped
from backwire_server.sessions import processors
from backwire_server.sessions.caller import Caller
from backwire_server.sessions.errors import Cancelled
from backwire_server.sessions.processor_turn import Turn
from backwire_server.sessions.processors import Processors
from backwire_server.sessions.scope import CallStop, Unbounded

SECONDS = 20.0


class Asking(Unbounded):
    """A call of a tenant, which can be cancelled."""

    def __init__(self, tenant: str = "a") -> None:
        super().__init__(Caller(tenant=tenant))
        self.gone = False
        self._stop = CallStop()

    @property
    def stop(self) -> CallStop:
        return self._stop

    def check(self) -> None:
        if self.gone:
            raise Cancelled("gone")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as found:
        yield found


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody computes because it waited for long, however slow the machine is."""
    monkeypatch.setattr(processors, "PATIENCE", SECONDS)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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
