"""Since when a call waits for its client, which may be slow, and when one may come again that found no place."""

import time
from collections.abc import Callable

from backwire_server.sessions.errors import Overloaded

IDLE_PATIENCE = 300.0
"""How many seconds a Pipeline may be idle, all its requests answered, when others want its place."""

Clock = Callable[[], float]


class Wait:
    """Of one call: whether it waits for more of its request, or for its client to take the answer, and since when.

    Threads may use it at the same time; what they tell is approximate then.
    """

    __slots__ = ("_clock", "_idle", "_patience", "_reading", "_sending")

    def __init__(self, patience: float, clock: Clock = time.monotonic) -> None:
        """Begins with waiting for the request, which may take `patience` seconds."""
        self._clock = clock
        self._patience = patience
        self._idle = False
        self._reading: float | None = clock()
        self._sending: float | None = None

    @property
    def sending(self) -> bool:
        """Whether it waits for the client to take the answer."""
        return self._sending is not None

    def heard(self) -> None:
        """Notes that a message came, and that more may."""
        if self._reading is not None:
            self._reading = self._clock()

    def busy(self) -> None:
        """Notes that the call has something to do, and waits for no message."""
        self._reading = None

    def idle(self) -> None:
        """Notes that a Pipeline has answered everything, and waits for the next request."""
        self._idle = True
        self._reading = self._clock()

    def send(self) -> None:
        """Notes that a part of the answer is on its way."""
        self._sending = self._clock()

    def sent(self) -> None:
        """Notes that the client has room for more of the answer."""
        self._sending = None

    def overdue(self) -> float:
        """Returns by how many seconds it waits longer than it should; zero or less when it does not."""
        now, most = self._clock(), 0.0
        if (since := self._reading) is not None:
            most = now - since - (max(self._patience, IDLE_PATIENCE) if self._idle else self._patience)
        if (since := self._sending) is not None:
            most = max(most, now - since - self._patience)
        return most


LONGEST_WAIT = 10.0
"""Seconds after which any call that is refused may come again."""


class Returns:
    """When calls that are refused may come again: one after another, as fast as calls are done. Under a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._interval = 0.01  # between two calls that are done, on average, when there are many
        self._last = self._next = clock()

    def left(self) -> None:
        """Notes that a call is done."""
        now = self._clock()
        self._interval += (min(now - self._last, 1.0) - self._interval) / 16
        self._last = now

    def next(self) -> float:
        """Returns the seconds until a place is likely to be free that was promised to nobody else."""
        now = self._clock()
        self._next = min(max(self._next, now) + self._interval, now + LONGEST_WAIT)
        return max(self._next - now, 1e-3)


def overloaded(message: str, quota: str, seconds: float) -> Overloaded:
    """Returns the error of a call that may come again after so many seconds."""
    return Overloaded(f"{message}; call again in {seconds:.3g} s", retry_after=seconds, quota=quota)
