"""The error of a wrong optimizer, and the ranges that an optimizer's figures must lie in."""

import math
from dataclasses import dataclass


class OptimizerError(ValueError):
    """An optimizer that cannot be used as it was given.

    Attributes:
        field: The offending field. While an object is made it is one of its own, for example `beta1`; an error about
            an optimizer that does not suit the parameters gives the whole path, for example
            `optimizer.groups[1].pattern`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Interval:
    """The finite numbers from `low` to `high`; an end belongs to it unless it is marked open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether `value` is finite and within the ends."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        """In words that complete "must be a finite number ..."."""
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.low_open else f"of at least {self.low:g}"
        return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


DECAY = Interval(0, 1, high_open=True)
SHARE = Interval(0, 1)
NOT_NEGATIVE = Interval(0)
POSITIVE = Interval(0, low_open=True)


def checked(field: str, value: float, interval: Interval) -> float:
    """Returns `value` as a Python float; raises OptimizerError when it is no number within `interval`."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise OptimizerError(field, f"{field} is {value!r}; it must be a finite number {interval}") from error
    if number not in interval:
        raise OptimizerError(field, f"{field} is {number:g}; it must be a finite number {interval}")
    return number


def check_fields(owner: object, **intervals: Interval) -> None:
    """Checks the named fields of a frozen dataclass and stores them as Python floats.

    A NumPy float64 scalar would widen float32 arithmetic; a Python float does not. Raises OptimizerError for the first
    field that is outside its interval.
    """
    for field, interval in intervals.items():
        object.__setattr__(owner, field, checked(field, getattr(owner, field), interval))
