"""Schedules that follow a curve over a known number of steps: linear, polynomial, cosine, one-cycle."""

import math
from dataclasses import dataclass

from backwire_server.optim.errors import NOT_NEGATIVE, POSITIVE, SHARE, Interval, check_fields
from backwire_server.optim.schedules import Schedule, check_steps

_AT_LEAST_ONE = Interval(1)


@dataclass(frozen=True, slots=True)
class LinearSchedule(Schedule):
    """From `base * start_factor` to `base * end_factor` in `steps` equal increments, then constant.

    A warm-up is a start factor below 1 and an end factor of 1.

    Attributes:
        steps: How many increments, at least 1.
        start_factor: What the first rate is relative to the base, zero or more.
        end_factor: What the last rate is relative to the base, zero or more.
    """

    steps: int
    start_factor: float = 1 / 3
    end_factor: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, start_factor=NOT_NEGATIVE, end_factor=NOT_NEGATIVE)
        check_steps("steps", self.steps)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        done = min(step - 1, self.steps) / self.steps
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


@dataclass(frozen=True, slots=True)
class PolynomialSchedule(Schedule):
    """`base * (1 - (step - 1) / steps)^power`, then 0.

    Attributes:
        steps: After how many steps the rate is 0, at least 1.
        power: The exponent, above 0; 1 is a straight line.
    """

    steps: int
    power: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, power=POSITIVE)
        check_steps("steps", self.steps)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        return base * math.pow(1 - min(step - 1, self.steps) / self.steps, self.power)


@dataclass(frozen=True, slots=True)
class CosineSchedule(Schedule):
    """`minimum + (base - minimum) * (1 + cos(pi * (step - 1) / steps)) / 2`, then `minimum`.

    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts",
    https://arxiv.org/abs/1608.03983, without restarts.

    Attributes:
        steps: After how many steps the minimum is reached, at least 1.
        minimum: The last rate, zero or more.
    """

    steps: int
    minimum: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, minimum=NOT_NEGATIVE)
        check_steps("steps", self.steps)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        return _cosine(base, self.minimum, min(step - 1, self.steps) / self.steps)


@dataclass(frozen=True, slots=True)
class CosineRestartsSchedule(Schedule):
    """Cosine curves from the base to the minimum, one after another; the first has `steps` steps, each next more.

    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts",
    https://arxiv.org/abs/1608.03983.

    Attributes:
        steps: The length of the first curve, at least 1.
        growth: How much longer each curve is than the one before, an integer of at least 1.
        minimum: What every curve falls towards, zero or more.
    """

    steps: int
    growth: int = 1
    minimum: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, minimum=NOT_NEGATIVE)
        check_steps("steps", self.steps)
        check_steps("growth", self.growth)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        done, length = step - 1, self.steps
        if self.growth == 1:
            done %= length
        while done >= length:
            done -= length
            length *= self.growth
        return _cosine(base, self.minimum, done / length)


@dataclass(frozen=True, slots=True)
class OneCycleSchedule(Schedule):
    """Up from `base / initial_divisor` to the base, down to `base / initial_divisor / final_divisor`, then constant.

    With three phases it first goes back down as far as it came, in as many steps. Momentum is not cycled.

    Smith and Topin 2018, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    https://arxiv.org/abs/1708.07120.

    Attributes:
        steps: The length of the whole cycle, at least 1.
        warmup_share: The share of it that goes up, in [0, 1]; with three phases at most a half.
        initial_divisor: How much smaller the first rate is than the base, at least 1.
        final_divisor: How much smaller the last rate is than the first, at least 1.
        linear: Whether the curves are straight lines instead of cosines.
        three_phases: Whether to return to the first rate before falling to the last.
    """

    steps: int
    warmup_share: float = 0.3
    initial_divisor: float = 25.0
    final_divisor: float = 1e4
    linear: bool = False
    three_phases: bool = False

    def __post_init__(self) -> None:
        share = Interval(0, 0.5) if self.three_phases else SHARE
        check_fields(self, warmup_share=share, initial_divisor=_AT_LEAST_ONE, final_divisor=_AT_LEAST_ONE)
        check_steps("steps", self.steps)

    def rate(self, step: int, base: float) -> float:
        """As in the class's formula."""
        first = base / self.initial_divisor
        turn = self.warmup_share * self.steps - 1
        phases = [(turn, first, base), (self.steps - 1, base, first / self.final_divisor)]
        if self.three_phases:
            back = (2 * self.warmup_share * self.steps - 2, base, first)
            phases[1:] = [back, (self.steps - 1, first, first / self.final_divisor)]
        done, begin = min(step - 1, self.steps - 1), 0.0
        for end, start, goal in phases[:-1]:
            if done <= end:
                return self._between(start, goal, done - begin, end - begin)
            begin = end
        end, start, goal = phases[-1]
        return self._between(start, goal, done - begin, end - begin)

    def _between(self, start: float, goal: float, done: float, length: float) -> float:
        share = done / length if length > 0 else 1.0
        return start + (goal - start) * share if self.linear else _cosine(start, goal, share)


def _cosine(start: float, goal: float, share: float) -> float:
    return goal + (start - goal) * (1 + math.cos(math.pi * share)) / 2
