"""How long a call may go on."""

from collections.abc import Callable
from typing import Protocol


class CallScope(Protocol):
    """What a session knows about the call it serves."""

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when nobody waits for the answer any more."""

    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is none."""

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Has `wait` return before the call is answered: it is called at once, or by whoever sends the answer."""


class Unbounded:
    """The scope of a call that nobody can cancel and that has all the time of the world."""

    def check(self) -> None:
        """Never raises."""

    def remaining(self) -> float | None:
        """None."""
        return None

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Calls `wait`."""
        wait()


UNBOUNDED = Unbounded()
