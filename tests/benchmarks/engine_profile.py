"""Where a step of the engine spends its time: by operator and shape, which a profiler of functions cannot tell.

Time is that of the processor, so that other processes do not show. What reading the clock takes is taken off.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from backwire_server.engine.frame import Frame
from backwire_server.engine.schedule import Chain, Step

SHOWN_INPUTS = 5
READINGS = 10_000
OTHER = "everything but kernels: session, optimizer, binding"


class _TimedCalls(list[Callable[[], Any]]):
    """The calls of a frame, which it makes as it goes over them; adds up the time from each to the next."""

    def __init__(self, calls: list[Callable[[], Any]]) -> None:
        super().__init__(calls)
        self.seconds = [0.0] * len(calls)

    def __iter__(self) -> Iterator[Callable[[], Any]]:
        for index, call in enumerate(super().__iter__()):
            begin = time.thread_time()
            yield call
            self.seconds[index] += time.thread_time() - begin


def profile(run: Callable[[int], None], steps: int, *, most: int) -> list[dict[str, Any]]:
    """Runs so many steps and returns the operators that took most of them, and the rest as one entry."""
    run(1)
    frames = [each for each in gc.get_objects() if isinstance(each, Frame)]
    for frame in frames:
        frame._calls = _TimedCalls(frame._calls)
    begin = time.thread_time()
    run(steps)
    total = time.thread_time() - begin
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for frame in frames:
        timed = frame._calls
        frame._calls = timed[:]
        assert isinstance(timed, _TimedCalls), "the frame was bound anew while it was profiled"
        if any(timed.seconds):
            for label, spent in zip(_labels(frame), timed.seconds, strict=True):
                seconds[label] += spent
                counts[label] += 1
    reading, calls = _seconds_of_reading(), sum(counts.values())
    found = [
        _entry(label, counts[label], 1000 * (spent / steps - counts[label] * reading))
        for label, spent in seconds.items()
    ]
    rest = (total - sum(seconds.values())) / steps - calls * reading  # each call is between two readings
    other = _entry(OTHER, 1, 1000 * rest)
    return sorted([*found, other], key=lambda entry: -entry["milliseconds_per_step"])[:most]


def _seconds_of_reading() -> float:
    """Returns how long it takes to read the clock, of which half falls before what is told and half after."""
    begin = time.thread_time()
    for _ in range(READINGS):
        time.thread_time()
    return (time.thread_time() - begin) / READINGS


def _entry(label: str, calls: int, milliseconds: float) -> dict[str, Any]:
    return {"name": label, "calls_per_step": calls, "milliseconds_per_step": milliseconds}


def _labels(frame: Frame) -> list[str]:
    """Returns what each call of a frame computes."""
    found: list[str] = []
    for item, place in zip(frame._schedule.steps, frame._places, strict=True):
        count = place.stop - place.start
        if isinstance(item, Chain):
            blocks = -(-item.count // item.rows)
            names = [_label(frame, step) for step in item.steps]
            if count != blocks * len(names):  # then no call can be told from its place
                names = [f"{len(names)} operators from {names[0]} to {names[-1]}"]
            found += [f"{name}, {blocks} blocks" for name in names] * (count // len(names))
        else:
            found += [_label(frame, item)] * count
    return found


def _label(frame: Frame, step: Step) -> str:
    shapes = [frame._arrays[slot] for slot in (*step.inputs, step.outputs[0])]
    *inputs, output = ["x".join(map(str, array.shape)) if array is not None else "-" for array in shapes]
    further = ["..."] if len(inputs) > SHOWN_INPUTS else []
    return f"{step.node.op.name}({', '.join(inputs[:SHOWN_INPUTS] + further)}) -> {output}"
