"""Who makes a call, how long it may go on, and where its time goes."""

from collections.abc import Callable
from typing import Protocol

from backwire_server.engine.stopping import Stop
from backwire_server.sessions.caller import ANYONE, Caller
from backwire_server.sessions.spent import Spent


class CallScope(Protocol):
    """What a session knows about the call it serves."""

    @property
    def caller(self) -> Caller:
        """Who calls."""

    @property
    def spent(self) -> Spent:
        """Where its time goes, to be added to."""

    @property
    def stop(self) -> Stop:
        """Tells computations between two kernels that `check` would raise."""

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
        self.stop = Stop()

    def check(self) -> None:
        """Never raises."""

    def remaining(self) -> float | None:
        """None."""
        return None

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Calls `wait`."""
        wait()


UNBOUNDED = Unbounded()
