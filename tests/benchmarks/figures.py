"""The form in which sections hand their figures over, and medians of calls that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Row = dict[str, Any]


def row(name: str, figure: float, unit: str, *, most: float | None = None, least: float | None = None) -> Row:
    """Returns a figure, with the most or the least that it should be where there is a target."""
    made: Row = {"name": name, "figure": figure, "unit": unit}
    if most is not None:
        made |= {"target": most, "less_is_better": True}
    if least is not None:
        made |= {"target": least, "less_is_better": False}
    return made


def unavailable(name: str, reason: object) -> Row:
    """Returns the row of a figure that could not be measured."""
    return {"name": name, "unavailable": str(reason)}


def interleaved(calls: Mapping[str, Callable[[], object]], *, rounds: int, burst: float) -> dict[str, list[float]]:
    """Returns the seconds that each call took on average in each round, in which all take turns for `burst` seconds."""
    counts = {}
    for name, call in calls.items():
        call()
        counts[name] = max(1, round(burst / max(_seconds(call, 1), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_seconds(call, counts[name]) / counts[name])
    return times


def ratio(times: list[float], others: list[float]) -> float:
    """Returns the median over the rounds of one time relative to the other."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def _seconds(call: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - begin
