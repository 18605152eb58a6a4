"""Since when a call waits for its client, which may be slow, or want nothing but the call's place."""

import time
from collections.abc import Callable

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
