"""Applies an optimizer, step after step, to vectors that mostly stay where they are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import elementwise
from backwire_server.optim.errors import NOT_NEGATIVE, checked
from backwire_server.optim.gradients import BLOCK, blocks
from backwire_server.optim.layout import FlatLayout, Vectors
from backwire_server.optim.optimizer import AVERAGE, Optimizer, OptimizerState
from backwire_server.optim.plan import Segment
from backwire_server.optim.rule import Piece

Array = NDArray[Any]


class _Job(NamedTuple):
    """A piece to update, the place of its stretch among all, and room for its gradients when they are clipped."""

    piece: Piece
    part: int
    spare: Array


class Stepper:
    """Applies steps in place. While the vectors are the same ones, all views of them are made once."""

    def __init__(self, optimizer: Optimizer, layout: FlatLayout) -> None:
        """Raises OptimizerError when the pattern of a parameter group matches no name of the layout."""
        self._optimizer = optimizer
        self._parts = optimizer.segments(layout)
        self._layout = layout
        self._vectors: list[Array] = []
        self._jobs: list[_Job] = []
        self._scratch: Vectors = {}

    def apply(
        self,
        parameters: Vectors,
        gradients: Vectors,
        state: OptimizerState,
        *,
        step: int,
        learning_rate: float | None = None,
    ) -> None:
        """Applies one step in place to `parameters` and `state`; `gradients` stay as they are.

        All memory is allocated before the first write, so that a call that fails has changed nothing. Whether the
        gradients are finite is the caller's to check.

        Args:
            parameters: The vectors of the parameters.
            gradients: The vectors of their gradients.
            state: What `init` gave, as the last step left it.
            step: The number of this step. The first is 1.
            learning_rate: The learning rate of this step alone; None for the optimizer's own.

        Raises:
            OptimizerError: `learning_rate` is negative or not finite.
        """
        optimizer = self._optimizer
        rate = optimizer.rate(step) if learning_rate is None else checked("learning_rate", learning_rate, NOT_NEGATIVE)
        self._bind(parameters, gradients, state)
        slopes = [gradients[part.dtype][part.span] for part in self._parts]
        factors = optimizer.clipping.factors(slopes)
        with np.errstate(all="ignore"):
            for piece, place, spare in self._jobs:
                part = self._parts[place]
                limited = optimizer.clipping.limit(piece.gradients, factors[place], spare)
                if limited is not piece.gradients:
                    piece = piece._replace(gradients=limited)
                part.rule.update(piece, step, rate * part.rate_factor)
            if optimizer.average_decay is not None:
                self._average(optimizer.average_decay, parameters, state, step)

    def _bind(self, parameters: Vectors, gradients: Vectors, state: OptimizerState) -> None:
        """Makes the views, unless they are those of the last step."""
        moments = [vector for vectors in state.values() for vector in vectors.values()]
        vectors = [*parameters.values(), *gradients.values(), *moments]
        if len(vectors) == len(self._vectors) and all(map(_is, vectors, self._vectors)):
            return
        self._scratch = _scratch(self._parts, self._layout)
        self._jobs = []
        for place, part in enumerate(self._parts):
            for span, shape in part.pieces():
                *room, spare = (row[: span.stop - span.start].reshape(shape) for row in self._scratch[part.dtype])
                memory = {name: vector[span].reshape(shape) for name, vector in state[part.dtype].items()}
                values, slopes = (each[part.dtype][span].reshape(shape) for each in (parameters, gradients))
                piece = Piece(values, slopes, memory, room[: part.rule.scratch_count])
                self._jobs.append(_Job(piece, place, spare))
        self._vectors = vectors

    def _average(self, decay: float, parameters: Vectors, state: OptimizerState, step: int) -> None:
        for dtype, vector in parameters.items():
            mean = state[dtype][AVERAGE]
            for part in blocks(0, vector.size):
                if step == 1:
                    np.copyto(mean[part], vector[part])
                else:
                    room = self._scratch[dtype][0, : part.stop - part.start]
                    elementwise.average(mean[part], vector[part], decay, room)


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
    """Applies a single step as a Stepper does."""
    Stepper(optimizer, layout).apply(parameters, gradients, state, step=step, learning_rate=learning_rate)


def _is(a: object, b: object) -> bool:
    return a is b


def _scratch(parts: Sequence[Segment], layout: FlatLayout) -> Vectors:
    """Per dtype, rows for the hungriest rule and one for clipped gradients, as long as the largest piece."""
    rows = 1 + max((part.rule.scratch_count for part in parts), default=0)
    room: Mapping[np.dtype[Any], int] = {
        dtype: max([min(size, BLOCK), *(part.room for part in parts if part.dtype == dtype)])
        for dtype, size in layout.sizes.items()
    }
    return {dtype: np.empty((rows, size), dtype) for dtype, size in room.items()}
