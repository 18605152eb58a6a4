"""Timeout: how long calls may take, by what they do."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from numbers import Real

from backwire._errors import InvalidRequestError

STALL_SECONDS = 1.0
"""How late it is noticed at least that a time is up where this process stood still: stopped, or its machine paused."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """How many seconds calls may take, repetitions included; `math.inf` for no limit.

    A call that is given `timeout=` of its own goes by that. One whose time passed while the process was stopped, as by
    Ctrl-Z, or a container that was paused, has all of it once more, and is repeated as Retry has it. Raises
    InvalidRequestError for a time that is not above 0.

    Attributes:
        call: A call with one request and one answer.
        transfer: A call that moves all of a session or its parameters: `parameters`, `gradients`, `set_parameters`,
            `export`, `import_session` and what rests on them.
        answer: The wait for an answer of a pipeline, and for a place in one.

    Example:
        >>> with bw.connect("localhost:50051", timeout=bw.Timeout(call=5, transfer=3600)):
        ...     pass
    """

    call: float = 60.0
    transfer: float = 600.0
    answer: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            positive(getattr(self, field.name))

    @classmethod
    def of(cls, timeout: "Timeout | float | None") -> "Timeout":
        """Returns the default for None, and for a number one that is the same for everything."""
        if timeout is None or isinstance(timeout, Timeout):
            return timeout or Timeout()
        return Timeout(timeout, timeout, timeout)


def positive(timeout: float) -> float:
    """Returns the seconds; raises InvalidRequestError where they are no number, or leave no time."""
    if not isinstance(timeout, Real):
        raise InvalidRequestError(f"a timeout of {timeout!r} is no number; give seconds, such as 60.0")
    if math.isnan(timeout) or timeout <= 0:
        raise InvalidRequestError(
            f"a timeout of {timeout} s leaves no time; give seconds above 0, or math.inf for none"
        )
    return timeout


def stood_still(deadline: float) -> bool:
    """Tells whether this process did while a time was up, by the monotonic clock: else it would have noticed sooner."""
    return time.monotonic() - deadline >= STALL_SECONDS


def waits(seconds: float) -> Iterator[None]:
    """Yields before a wait of so many seconds, and before another one where this process stood still in the first."""
    deadline = time.monotonic() + seconds
    yield
    if stood_still(deadline):
        yield
