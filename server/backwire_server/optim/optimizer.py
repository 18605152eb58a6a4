"""An optimizer: a rule, a learning rate and its schedule, and what is done to gradients and parameters besides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, OptimizerError, check_fields, checked
from backwire_server.optim.gradients import Clipping
from backwire_server.optim.groups import ParameterGroup
from backwire_server.optim.layout import FlatLayout, Vectors
from backwire_server.optim.plan import Segment, segments
from backwire_server.optim.rule import Rule
from backwire_server.optim.schedules import Schedule

OptimizerState = dict[np.dtype[Any], dict[str, NDArray[Any]]]
"""What an optimizer remembers between steps: per dtype, vectors by name, each as long as that dtype's parameters."""

MAX_GROUPS = 1_000
"""The most parameter groups of an optimizer: each is matched with the name of every parameter."""

AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How a step turns gradients into new parameters. Immutable; raises OptimizerError when a figure is out of range.

    Attributes:
        learning_rate: The step size, zero or more; the base of the schedule.
        rule: The update rule.
        clipping: The limits on the gradients.
        schedule: How the learning rate depends on the step number; None for constant.
        groups: What holds for some parameters only; the first group that matches a name counts. At most 1,000.
        average_decay: The decay of an exponential moving average of the parameters, in [0, 1); None keeps no average.
    """

    learning_rate: float
    rule: Rule
    clipping: Clipping = field(default_factory=Clipping)
    schedule: Schedule | None = None
    groups: tuple[ParameterGroup, ...] = ()
    average_decay: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, learning_rate=NOT_NEGATIVE)
        if self.average_decay is not None:
            check_fields(self, average_decay=DECAY)
        if len(self.groups) > MAX_GROUPS:
            message = (
                f"there are {len(self.groups)} parameter groups; join them by wider patterns to at most {MAX_GROUPS}"
            )
            raise OptimizerError("groups", message)

    def rate(self, step: int) -> float:
        """The learning rate of the step with this number; the first is 1.

        Raises OptimizerError when the schedule leads to a rate that is negative or not finite.
        """
        if self.schedule is None:
            return self.learning_rate
        try:
            return checked("schedule", self.schedule.rate(step, self.learning_rate), NOT_NEGATIVE)
        except OverflowError as error:
            message = f"the schedule's rate at step {step} is out of range; give a factor of at most 1"
            raise OptimizerError("schedule", message) from error

    def segments(self, layout: FlatLayout) -> tuple[Segment, ...]:
        """What a step works on. Raises OptimizerError when the pattern of a group matches no name of the layout."""
        return segments(layout, self.rule, self.groups, self.clipping.norm is not None)


def init(optimizer: Optimizer, layout: FlatLayout) -> OptimizerState:
    """The optimizer's state before the first step. New arrays.

    Raises OptimizerError when the pattern of a parameter group matches no name of the layout.
    """
    state: OptimizerState = {dtype: {} for dtype in layout.sizes}
    for segment in optimizer.segments(layout):
        vectors, size = state[segment.dtype], layout.sizes[segment.dtype]
        for name, start in segment.rule.init(np.empty(segment.size, segment.dtype)).items():
            vectors.setdefault(name, np.zeros(size, segment.dtype))[segment.span] = start
    if optimizer.average_decay is not None:
        for dtype, size in layout.sizes.items():
            state[dtype][AVERAGE] = np.zeros(size, dtype)
    return state


def copy_state(state: Mapping[np.dtype[Any], Mapping[str, NDArray[Any]]]) -> OptimizerState:
    """A copy that shares no memory with `state`."""
    return {dtype: {name: vector.copy() for name, vector in vectors.items()} for dtype, vectors in state.items()}


def averages(state: OptimizerState) -> Vectors | None:
    """The moving averages of the parameters, as the state's own vectors; None when the optimizer keeps none.

    They are zeros before the first step, and the parameters themselves after it: `a = decay * a + (1 - decay) * p`
    from the second step on.
    """
    found = {dtype: vectors[AVERAGE] for dtype, vectors in state.items() if AVERAGE in vectors}
    return found or None
