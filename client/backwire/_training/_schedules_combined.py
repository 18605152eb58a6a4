"""Schedules made of others: one after another, or all at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from backwire._errors import OptimizerError
from backwire._training._schedules import PATH, Schedule, checked_milestones


@dataclass(frozen=True, slots=True)
class SequentialSchedule(Schedule):
    """One schedule after another; each counts its own steps from 1.

    Attributes:
        schedules: The schedules, at least one.
        milestones: After which steps the next one takes over, in rising order; one fewer than schedules.

    Example:
        >>> warmup, decay = bw.LinearSchedule(100), bw.CosineSchedule(900)
        >>> schedule = bw.SequentialSchedule([warmup, decay], milestones=[100])
    """

    schedules: Sequence[Schedule]
    milestones: Sequence[int]

    _kind: ClassVar[str] = "sequential"

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", _schedules(self.schedules))
        object.__setattr__(self, "milestones", checked_milestones(self.milestones))
        if len(self.milestones) != len(self.schedules) - 1:
            counts = f"{len(self.schedules)} schedules and {len(self.milestones)} milestones"
            raise OptimizerError(
                f"SequentialSchedule: there are {counts}; give one milestone between every two schedules",
                field=f"{PATH}.milestones",
            )


@dataclass(frozen=True, slots=True)
class ChainedSchedule(Schedule):
    """Several schedules at once: the rate of each is the base of the next, so that their factors multiply.

    Example:
        >>> warmup, decay = bw.LinearSchedule(100), bw.ExponentialSchedule(0.999)
        >>> optimizer = bw.SGD(0.1, schedule=bw.ChainedSchedule([warmup, decay]))
    """

    schedules: Sequence[Schedule]

    _kind: ClassVar[str] = "chained"

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", _schedules(self.schedules))


def _schedules(given: Sequence[Schedule]) -> tuple[Schedule, ...]:
    schedules = tuple(given)
    if not schedules:
        raise OptimizerError("schedules is empty; give at least one schedule", field=f"{PATH}.schedules")
    return schedules
