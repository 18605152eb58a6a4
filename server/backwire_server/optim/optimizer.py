"""An optimizer: a rule, a learning rate and its schedule, and what is done to gradients and parameters besides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import elementwise
from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, OptimizerError, check_fields, checked
from backwire_server.optim.gradients import BLOCK, Clipping, blocks
from backwire_server.optim.groups import ParameterGroup
from backwire_server.optim.layout import FlatLayout, Vectors
from backwire_server.optim.plan import Segment, segments
from backwire_server.optim.rule import Piece, Rule
from backwire_server.optim.schedules import Schedule

OptimizerState = dict[np.dtype[Any], dict[str, NDArray[Any]]]
"""What an optimizer remembers between steps: per dtype, vectors by name, each as long as that dtype's parameters."""

MAX_GROUPS = 1_000
"""The most parameter groups of an optimizer: each is matched with the name of every parameter."""

_AVERAGE = "average"


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
            state[dtype][_AVERAGE] = np.zeros(size, dtype)
    return state


def copy_state(state: Mapping[np.dtype[Any], Mapping[str, NDArray[Any]]]) -> OptimizerState:
    """A copy that shares no memory with `state`."""
    return {dtype: {name: vector.copy() for name, vector in vectors.items()} for dtype, vectors in state.items()}


def averages(state: OptimizerState) -> Vectors | None:
    """The moving averages of the parameters, as the state's own vectors; None when the optimizer keeps none.

    They are zeros before the first step, and the parameters themselves after it: `a = decay * a + (1 - decay) * p`
    from the second step on.
    """
    found = {dtype: vectors[_AVERAGE] for dtype, vectors in state.items() if _AVERAGE in vectors}
    return found or None


def apply(
    optimizer: Optimizer,
    layout: FlatLayout,
    parameters: Vectors,
    gradients: Vectors,
    state: OptimizerState,
    *,
    step: int,
    learning_rate: float | None = None,
) -> None:
    """Applies one step in place to `parameters` and `state`; `gradients` stay as they are.

    All memory is allocated before the first write, so that a call that fails has changed nothing. Whether the gradients
    are finite is the caller's to check.

    Args:
        optimizer: What to apply.
        layout: How the vectors are laid out.
        parameters: The vectors of the parameters.
        gradients: The vectors of their gradients.
        state: What `init` gave, as the last step left it.
        step: The number of this step. The first is 1.
        learning_rate: The learning rate of this step alone; None for the optimizer's own.

    Raises:
        OptimizerError: `learning_rate` is negative or not finite.
    """
    rate = optimizer.rate(step) if learning_rate is None else checked("learning_rate", learning_rate, NOT_NEGATIVE)
    parts = optimizer.segments(layout)
    factors = optimizer.clipping.factors([gradients[part.dtype][part.span] for part in parts])
    scratch = _scratch(parts, layout)
    with np.errstate(all="ignore"):
        for part, factor in zip(parts, factors, strict=True):
            for span, shape in part.pieces():
                *room, spare = (row[: span.stop - span.start].reshape(shape) for row in scratch[part.dtype])
                slopes = optimizer.clipping.limit(gradients[part.dtype][span].reshape(shape), factor, spare)
                memory = {name: vector[span].reshape(shape) for name, vector in state[part.dtype].items()}
                values = parameters[part.dtype][span].reshape(shape)
                piece = Piece(values, slopes, memory, room[: part.rule.scratch_count])
                part.rule.update(piece, step, rate * part.rate_factor)
        if optimizer.average_decay is not None:
            _average(optimizer.average_decay, parameters, state, scratch, step)


def _scratch(parts: tuple[Segment, ...], layout: FlatLayout) -> Vectors:
    """Per dtype, rows for the hungriest rule and one for clipped gradients, as long as the largest piece."""
    rows = 1 + max((part.rule.scratch_count for part in parts), default=0)
    room = {dtype: min(size, BLOCK) for dtype, size in layout.sizes.items()}
    for part in parts:
        room[part.dtype] = max(room[part.dtype], part.room)
    return {dtype: np.empty((rows, size), dtype) for dtype, size in room.items()}


def _average(decay: float, parameters: Vectors, state: OptimizerState, scratch: Vectors, step: int) -> None:
    for dtype, vector in parameters.items():
        mean = state[dtype][_AVERAGE]
        for part in blocks(0, vector.size):
            if step == 1:
                np.copyto(mean[part], vector[part])
            else:
                elementwise.average(mean[part], vector[part], decay, scratch[dtype][0, : part.stop - part.start])
