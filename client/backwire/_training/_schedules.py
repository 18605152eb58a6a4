"""How the learning rate depends on the step number t, which is 1 for the first step."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

from backwire._errors import OptimizerError
from backwire._training._figures import (
    AT_LEAST_ONE,
    COUNT,
    COUNT_OR_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Range,
    check_figures,
)
from backwire_api.v1 import optimizer_pb2

PATH = "optimizer.schedule"
"""The field that errors name."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What all schedules have; use one of the subclasses. Raises OptimizerError for a figure outside its range.

    The base is the optimizer's learning rate. `Session.step(learning_rate=...)` replaces the rate for one step.
    """

    _kind: ClassVar[str] = ""
    _ranges: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self) -> None:
        check_figures(self, self._ranges, PATH)

    def to_proto(self) -> optimizer_pb2.Schedule:
        """Returns the message `backwire_api.v1.Schedule`."""
        message = optimizer_pb2.Schedule()
        kind: Any = getattr(message, self._kind)
        kind.SetInParent()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "schedules":
                kind.schedules.extend(schedule.to_proto() for schedule in value)
            elif field.name == "milestones":
                kind.milestones.extend(value)
            else:
                setattr(kind, field.name, value)
        return message


@dataclass(frozen=True, slots=True)
class ConstantSchedule(Schedule):
    """`base * factor` for the first `steps` steps, then `base`. `factor` is in [0, 1].

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.ConstantSchedule(0.1, steps=500))
    """

    factor: float
    steps: int

    _kind: ClassVar[str] = "constant"
    _ranges: ClassVar[Mapping[str, Range]] = {"factor": SHARE, "steps": COUNT_OR_ZERO}


@dataclass(frozen=True, slots=True)
class StepSchedule(Schedule):
    """`base * factor^floor((t - 1) / every)`: multiplied by `factor`, above 0, after every `every` steps.

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.StepSchedule(every=1000))
    """

    every: int
    factor: float = 0.1

    _kind: ClassVar[str] = "step"
    _ranges: ClassVar[Mapping[str, Range]] = {"every": COUNT, "factor": POSITIVE}


@dataclass(frozen=True, slots=True)
class MultiStepSchedule(Schedule):
    """Multiplied by `factor`, above 0, after each of the steps in `milestones`, which must not fall.

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.MultiStepSchedule([3000, 6000]))
    """

    milestones: Sequence[int]
    factor: float = 0.1

    _kind: ClassVar[str] = "multi_step"
    _ranges: ClassVar[Mapping[str, Range]] = {"factor": POSITIVE}

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        object.__setattr__(self, "milestones", checked_milestones(self.milestones))


@dataclass(frozen=True, slots=True)
class ExponentialSchedule(Schedule):
    """`base * factor^(t - 1)`: multiplied by `factor`, above 0, after every step.

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.ExponentialSchedule(0.999))
    """

    factor: float

    _kind: ClassVar[str] = "exponential"
    _ranges: ClassVar[Mapping[str, Range]] = {"factor": POSITIVE}


@dataclass(frozen=True, slots=True)
class LinearSchedule(Schedule):
    """From `base * start_factor` to `base * end_factor` in `steps` equal increments, then constant.

    The defaults are a warm-up.

    Example:
        >>> warmup = bw.LinearSchedule(100, start_factor=0.01)
    """

    steps: int
    _: KW_ONLY
    start_factor: float = 1 / 3
    end_factor: float = 1.0

    _kind: ClassVar[str] = "linear"
    _ranges: ClassVar[Mapping[str, Range]] = {
        "steps": COUNT,
        "start_factor": NOT_NEGATIVE,
        "end_factor": NOT_NEGATIVE,
    }


@dataclass(frozen=True, slots=True)
class PolynomialSchedule(Schedule):
    """`base * (1 - (t - 1) / steps)^power`, then 0. `power` is above 0.

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.PolynomialSchedule(10_000, power=2.0))
    """

    steps: int
    power: float = 1.0

    _kind: ClassVar[str] = "polynomial"
    _ranges: ClassVar[Mapping[str, Range]] = {"steps": COUNT, "power": POSITIVE}


@dataclass(frozen=True, slots=True)
class CosineSchedule(Schedule):
    """`minimum + (base - minimum) * (1 + cos(pi * (t - 1) / steps)) / 2`, then `minimum`, a rate of 0 or more.

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.CosineSchedule(10_000))
    """

    steps: int
    minimum: float = 0.0

    _kind: ClassVar[str] = "cosine"
    _ranges: ClassVar[Mapping[str, Range]] = {"steps": COUNT, "minimum": NOT_NEGATIVE}


@dataclass(frozen=True, slots=True)
class CosineRestartsSchedule(Schedule):
    """The curve of `CosineSchedule` again and again, each time `growth` times as long (Loshchilov and Hutter 2017).

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.CosineRestartsSchedule(1000, growth=2))
    """

    steps: int
    _: KW_ONLY
    growth: int = 1
    minimum: float = 0.0

    _kind: ClassVar[str] = "cosine_restarts"
    _ranges: ClassVar[Mapping[str, Range]] = {"steps": COUNT, "growth": COUNT, "minimum": NOT_NEGATIVE}


@dataclass(frozen=True, slots=True)
class OneCycleSchedule(Schedule):
    """Up to the base once, and down again much further (Smith and Topin 2018), then constant.

    Attributes:
        steps: The length of the whole cycle.
        warmup_share: The share of it that goes up, in [0, 1]; with `three_phases` at most a half.
        initial_divisor: How many times smaller the first rate is than the base, 1 or more.
        final_divisor: How many times smaller the last rate is than the first, 1 or more.
        linear: True for straight lines instead of half cosines.
        three_phases: True to go back down to the first rate as fast as it went up, and only then to the last.

    Example:
        >>> optimizer = bw.SGD(0.1, schedule=bw.OneCycleSchedule(10_000))
    """

    steps: int
    _: KW_ONLY
    warmup_share: float = 0.3
    initial_divisor: float = 25.0
    final_divisor: float = 1e4
    linear: bool = False
    three_phases: bool = False

    _kind: ClassVar[str] = "one_cycle"
    _ranges: ClassVar[Mapping[str, Range]] = {
        "steps": COUNT,
        "warmup_share": SHARE,
        "initial_divisor": AT_LEAST_ONE,
        "final_divisor": AT_LEAST_ONE,
    }

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if self.three_phases and self.warmup_share > 0.5:
            raise OptimizerError(
                f"OneCycleSchedule: warmup_share is {self.warmup_share}, but must be in [0, 0.5] with three phases",
                field=f"{PATH}.warmup_share",
            )


def checked_milestones(given: Sequence[int]) -> tuple[int, ...]:
    """Returns the step numbers; raises OptimizerError unless they are at least 1 and never fall."""
    milestones = tuple(given)
    if any(milestone < 1 for milestone in milestones) or list(milestones) != sorted(milestones):
        raise OptimizerError(
            f"milestones is {given!r}; give step numbers of at least 1, in rising order", field=f"{PATH}.milestones"
        )
    return milestones
