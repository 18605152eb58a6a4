"""Threads share tasks: each is done once, whoever does it, and the numbers are those of one thread."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.waiting import until

from backwire_server import optim
from backwire_server.optim import compiled, summing
from backwire_server.optim.gradients import BLOCK, RUN
from backwire_server.optim.sharing import ALONE
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.threads import LEAST, Threads

SECONDS = 60.0
SIZE = 6 * RUN * BLOCK + 5
"""So many elements that all work on them is shared."""


class Meeting:
    """Tasks, of which each hand's first waits for that of the other hand."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []
        self._barrier = threading.Barrier(2, timeout=SECONDS)
        self._here: set[int] = set()

    def task(self, place: int, hand: int) -> None:
        if hand not in self._here:
            self._here.add(hand)
            self._barrier.wait()
        self.done.append((place, hand))


@pytest.fixture
def threads() -> Iterator[Threads]:
    with ThreadPoolExecutor(1) as pool:
        yield Threads(pool, 2)


def test_each_task_is_done_once_and_both_hands_do_some(threads: Threads) -> None:
    meeting = Meeting()
    threads.share([partial(meeting.task, place) for place in range(40)])
    assert sorted(place for place, _ in meeting.done) == list(range(40))
    assert {hand for _, hand in meeting.done} == {0, 1}


def test_what_a_task_raises_in_the_other_thread_is_raised(threads: Threads) -> None:
    meeting = Meeting()

    def task(place: int, hand: int) -> None:
        meeting.task(place, hand)
        if hand == 1:
            raise ValueError("of the other hand")

    with pytest.raises(ValueError, match="of the other hand"):
        threads.share([partial(task, place) for place in range(40)])


def test_all_is_done_when_the_other_thread_has_no_time_or_is_gone() -> None:
    done: list[int] = []
    tasks = [lambda _, place=place: done.append(place) for place in range(20)]
    pool, release = ThreadPoolExecutor(1), threading.Event()
    pool.submit(release.wait, SECONDS)
    Threads(pool, 2).share(tasks)
    release.set()
    pool.shutdown()
    Threads(pool, 2).share(tasks)
    assert done == [*range(20)] * 2


class Full(ThreadPoolExecutor):
    """A pool that can start no thread more, but keeps what it is given for those that it has."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        super().submit(*args, **kwargs)
        raise RuntimeError("can't start new thread")


def test_what_a_pool_begins_though_it_refused_it_is_waited_for() -> None:
    meeting, done = Meeting(), list[int]()

    def task(place: int, hand: int) -> None:
        meeting.task(place, hand)
        if hand == 1:
            until(lambda: len(meeting.done) == 40)
            time.sleep(0.05)
        done.append(place)

    with Full(1) as pool:
        Threads(pool, 2).share([partial(task, place) for place in range(40)])
        assert sorted(done) == list(range(40))


@pytest.mark.parametrize(
    ("helpers", "most", "elements", "count"),
    [(1, 2, LEAST, 2), (1, 2, LEAST - 1, 1), (3, 2, LEAST, 2), (0, 2, LEAST, 1)],
)
def test_hands_are_as_many_as_there_are_helpers_where_the_work_is_long(
    helpers: int, most: int, elements: int, count: int
) -> None:
    crew = Crew(helpers)
    assert crew.hands(most, elements).count == count
    crew.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rule", [optim.Sgd(0.9), optim.Adam(), optim.AdamW()], ids=str)
def test_a_step_has_the_bits_of_one_thread(threads: Threads, rule: optim.Rule) -> None:
    layout = optim.FlatLayout({"w": ("float32", (SIZE,))})
    dtype = np.dtype("float32")
    compiled.adam(dtype, wait=True)  # else nothing of a step is shared
    gradients = {dtype: np.random.default_rng(0).normal(size=SIZE).astype(dtype)}
    gradients[dtype][:2] = 3e38, 1e-42  # what squares of leave the range, which only warnings would tell
    optimizer = optim.Optimizer(0.1, rule, clipping=optim.Clipping(value=1e38))
    found = []
    for hands in (ALONE, threads):
        parameters, state = layout.zeros(), optim.init(optimizer, layout)
        stepper = optim.Stepper(optimizer, layout)
        for step in (1, 2):
            stepper.apply(parameters, gradients, state, step=step, hands=hands)
        found.append(parameters[dtype].tobytes())
    assert found[0] == found[1]


@pytest.mark.filterwarnings("error")
def test_a_divided_sum_has_the_bits_of_one_thread(threads: Threads) -> None:
    found = []
    for hands in (ALONE, threads):
        draw = np.random.default_rng(0)
        kinds: dict[np.dtype[Any], int] = {np.dtype(np.float32): SIZE, np.dtype(np.float64): 3}
        parts = [{dtype: draw.normal(size=size).astype(dtype) for dtype, size in kinds.items()} for _ in range(3)]
        for part in parts[:2]:
            part[np.dtype(np.float32)][:2] = 3e38, np.inf
        summing.divide_sum(parts, [2.0, 1.0, 1.5], 4.5, hands)
        found.append([array.tobytes() for array in parts[0].values()])
    assert found[0] == found[1]
