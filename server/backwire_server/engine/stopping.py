"""How a computation is told to stop before its end."""


class Stop:
    """Says whether the result of a computation is still wanted; looked at between any two kernels.

    Attributes:
        wanted: Whether to stop. Another thread may set it.
    """

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        self.wanted = False


class Stopped(Exception):
    """The computation was stopped."""


NEVER = Stop()
"""That of a computation that nobody can stop. Not to be set."""
