"""How a computation is told to stop before its end, or to wait, and how long it may take."""

import time
from collections.abc import Callable

from backwire_server.engine.errors import TooCostly


class Stop:
    """Says whether a computation may go on; looked at between any two kernels, and any two nodes that are compiled.

    Attributes:
        wanted: Whether to call `heed`. Another thread may set it.
    """

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        self.wanted = False

    def heed(self) -> None:
        """Returns when the computation may go on; raises Stopped when it may not."""
        raise Stopped


class Stopped(Exception):
    """The computation was stopped."""


NEVER = Stop()
"""That of a computation that nobody can stop. Not to be set."""


class Allowance(Stop):
    """Stops what takes longer than it may, besides what another Stop stops."""

    __slots__ = ("_clock", "_end", "_other", "_seconds")

    def __init__(self, seconds: float, other: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts the clock."""
        self._seconds, self._other, self._clock = seconds, other, clock
        self._end = clock() + seconds

    @property
    def wanted(self) -> bool:  # type: ignore[override]
        """Whether the time is up, or the other says so."""
        return self._other.wanted or self._clock() > self._end

    def heed(self) -> None:
        """Does what the other does; raises TooCostly when the time is up. Waiting for the other takes no time."""
        asked = self._clock()
        if asked > self._end:
            raise TooCostly(
                f"compiling the graph takes longer than the {self._seconds:g} s that it may; use a graph with fewer "
                "nodes, or raise --max-compile-time",
                quota="max_compile_time",
            )
        self._other.heed()
        self._end += self._clock() - asked
