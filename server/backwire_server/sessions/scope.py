"""Who makes a call, how long it may go on, and where its time goes."""

from collections.abc import Callable
from typing import Protocol

from backwire_server.engine.stopping import Stop, Stopped
from backwire_server.sessions.caller import ANYONE, Caller
from backwire_server.sessions.spent import Spent

Check = Callable[[], None]
"""Raises what `CallScope.check` raises, for who waits for a call and knows nothing else of it."""


def unchecked() -> None:
    """As a Check, of who waits to the end."""


class Yielding(Protocol):
    """What computes, and can let others do so."""

    def give_way(self) -> None:
        """Returns when it may go on; raises what `CallScope.check` raises."""


class CallStop(Stop):
    """What stops the computation of a call, makes it give way, and is told what it takes.

    Attributes:
        ended: Whether the call is over for the client.
        turn: What gives way; None while nothing is computed.
        charge: Told how many floating-point operations are about to be done; may raise.
    """

    __slots__ = ("charge", "ended", "turn")

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        self.turn: Yielding | None = None
        self.charge: Callable[[int], None] = _for_free

    def end(self) -> None:
        """Notes that the call is over for the client; by any thread."""
        self.ended = True
        self.wanted = True

    def press(self) -> None:
        """Asks to give way before the next kernel; by any thread."""
        self.wanted = True

    def heed(self) -> None:
        """Gives way; raises Stopped when the call is over."""
        self.wanted = False
        if self.ended:
            self.wanted = True  # whatever was set in between
            raise Stopped
        if self.turn is not None:
            self.turn.give_way()


def _for_free(_: int) -> None:
    pass


class CallScope(Protocol):
    """What a session knows about the call it serves."""

    @property
    def caller(self) -> Caller:
        """Who calls."""

    @property
    def spent(self) -> Spent:
        """Where its time goes, to be added to."""

    @property
    def stop(self) -> CallStop:
        """What stops what it computes."""

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when nobody waits for the answer any more."""

    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is none."""

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Has `wait` return before the call is answered: it is called at once, or by whoever sends the answer."""


class Unbounded:
    """The scope of a call of anyone that nobody can cancel and that has all the time of the world."""

    def __init__(self, caller: Caller = ANYONE) -> None:
        self.caller = caller
        self.spent = Spent()

    @property
    def stop(self) -> CallStop:
        """One that nobody tells to stop."""
        return CallStop()

    def check(self) -> None:
        """Never raises."""

    def remaining(self) -> float | None:
        """None."""
        return None

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Calls `wait`."""
        wait()


UNBOUNDED = Unbounded()
