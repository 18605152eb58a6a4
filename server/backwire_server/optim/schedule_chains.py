"""Schedules made of schedules."""

from bisect import bisect_right
from dataclasses import dataclass

from backwire_server.optim.errors import OptimizerError
from backwire_server.optim.schedules import Schedule, check_milestones


@dataclass(frozen=True, slots=True)
class SequentialSchedule(Schedule):
    """One schedule after another; each counts its own steps from 1.

    A warm-up followed by a decay is `SequentialSchedule((LinearSchedule(100), CosineSchedule(900)), (100,))`.

    Attributes:
        schedules: The schedules, at least one.
        milestones: After which steps the next one takes over, rising; one fewer than schedules.
    """

    schedules: tuple[Schedule, ...]
    milestones: tuple[int, ...]

    def __post_init__(self) -> None:
        check_milestones(self.milestones)
        if len(self.milestones) != len(self.schedules) - 1:
            counts = f"{len(self.schedules)} schedules and {len(self.milestones)} milestones"
            raise OptimizerError("milestones", f"got {counts}; give one milestone between every two schedules")

    def rate(self, step: int, base: float) -> float:
        """The rate of the schedule in charge."""
        index = bisect_right(self.milestones, step - 1)
        start = self.milestones[index - 1] if index else 0
        return self.schedules[index].rate(step - start, base)


@dataclass(frozen=True, slots=True)
class ChainedSchedule(Schedule):
    """All schedules at once: the rate of each is the base of the next, so that their factors multiply.

    Attributes:
        schedules: The schedules, at least one.
    """

    schedules: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        if not self.schedules:
            raise OptimizerError("schedules", "schedules is empty; give at least one")

    def rate(self, step: int, base: float) -> float:
        """The rate of the last schedule."""
        for schedule in self.schedules:
            base = schedule.rate(step, base)
        return base
