"""How the learning rate depends on the step number. Plain frozen data; a rate is a pure function of the step."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass

from backwire_server.optim.errors import POSITIVE, SHARE, OptimizerError, check_fields


@dataclass(frozen=True, slots=True)
class Schedule(ABC):
    """A learning rate for every step. Steps are counted from 1, so the first step has the schedule's first rate."""

    @abstractmethod
    def rate(self, step: int, base: float) -> float:
        """The learning rate of the step with this number, for an optimizer whose own learning rate is `base`."""


@dataclass(frozen=True, slots=True)
class ConstantSchedule(Schedule):
    """`base * factor` for the first `steps` steps, then `base`.

    Attributes:
        factor: What the first rates are multiplied by, in [0, 1].
        steps: How long, zero or more.
    """

    factor: float = 1.0
    steps: int = 0

    def __post_init__(self) -> None:
        check_fields(self, factor=SHARE)
        check_steps("steps", self.steps, least=0)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        return base * (self.factor if step <= self.steps else 1.0)


@dataclass(frozen=True, slots=True)
class StepSchedule(Schedule):
    """Multiplied by `factor` after every `every` steps: `base * factor^floor((step - 1) / every)`.

    Attributes:
        every: How many steps share a rate, at least 1.
        factor: What the rate is multiplied by, above 0.
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self, factor=POSITIVE)
        check_steps("every", self.every)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        return base * self.factor ** ((step - 1) // self.every)


@dataclass(frozen=True, slots=True)
class MultiStepSchedule(Schedule):
    """Multiplied by `factor` after each of the given steps: `base * factor^(milestones before step)`.

    Attributes:
        milestones: After which steps, at least 1 each, rising; one that is named twice counts twice.
        factor: What the rate is multiplied by, above 0.
    """

    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self, factor=POSITIVE)
        check_milestones(self.milestones)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        return base * self.factor ** bisect_right(self.milestones, step - 1)


@dataclass(frozen=True, slots=True)
class ExponentialSchedule(Schedule):
    """Multiplied by `factor` after every step: `base * factor^(step - 1)`.

    Attributes:
        factor: What the rate is multiplied by, above 0.
    """

    factor: float

    def __post_init__(self) -> None:
        check_fields(self, factor=POSITIVE)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        return base * self.factor ** (step - 1)


def check_steps(field: str, value: int, least: int = 1) -> None:
    """Raises OptimizerError when a count is below `least`."""
    if value < least:
        raise OptimizerError(field, f"{field} is {value}; it must be at least {least}")


def check_milestones(milestones: tuple[int, ...]) -> None:
    """Raises OptimizerError unless the milestones are positive step numbers that never fall."""
    for milestone in milestones:
        check_steps("milestones", milestone)
    if list(milestones) != sorted(milestones):
        raise OptimizerError("milestones", f"milestones are {list(milestones)}; sort them in rising order")
