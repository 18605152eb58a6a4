"""How long a call may go on."""

from typing import Protocol


class CallScope(Protocol):
    """What a session knows about the call it serves."""

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when nobody waits for the answer any more."""

    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is none."""


class Unbounded:
    """The scope of a call that nobody can cancel and that has all the time of the world."""

    def check(self) -> None:
        """Never raises."""

    def remaining(self) -> float | None:
        """None."""
        return None


UNBOUNDED = Unbounded()
