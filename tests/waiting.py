"""Waits for what other threads and processes do."""

from collections.abc import Callable
from threading import Event
from time import monotonic  # a clock that no test has replaced
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 30.0, pause: float = 0.005) -> T:
    """Returns what a condition gives once that counts as true; fails when it never does."""
    deadline = monotonic() + seconds
    while not (found := condition()):
        assert monotonic() < deadline, "it never happened"
        Event().wait(pause)
    return found
