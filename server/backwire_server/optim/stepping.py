"""Applies an optimizer, step after step, to vectors that mostly stay where they are."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import elementwise
from backwire_server.optim.errors import NOT_NEGATIVE, checked
from backwire_server.optim.gradients import BLOCK, RUN, blocks
from backwire_server.optim.layout import FlatLayout, Vectors
from backwire_server.optim.optimizer import AVERAGE, Optimizer, OptimizerState
from backwire_server.optim.plan import Segment
from backwire_server.optim.rule import Piece
from backwire_server.optim.sharing import ALONE, Hands

Array = NDArray[Any]


class _Job(NamedTuple):
    """A piece to update, the place of its stretch among all, and each hand's room for its gradients when clipped."""

    piece: Piece
    part: int
    spares: Sequence[Array]


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
        self._shape = BLOCK, 1

    def apply(
        self,
        parameters: Vectors,
        gradients: Vectors,
        state: OptimizerState,
        *,
        step: int,
        learning_rate: float | None = None,
        hands: Hands = ALONE,
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
            hands: What shares the work where that pays; the bits are the same for any.

        Raises:
            OptimizerError: `learning_rate` is negative or not finite.
        """
        optimizer = self._optimizer
        rate = optimizer.rate(step) if learning_rate is None else checked("learning_rate", learning_rate, NOT_NEGATIVE)
        if not all(part.rule.in_one_pass(part.dtype) for part in self._parts):
            hands = ALONE
            self._bind(parameters, gradients, state, BLOCK, 1)
        else:
            self._bind(parameters, gradients, state, RUN * BLOCK, hands.count)
        slopes = [gradients[part.dtype][part.span] for part in self._parts]
        factors = optimizer.clipping.factors(slopes)
        hands.share([partial(self._update, job, factors[job.part], step, rate) for job in self._jobs])
        if optimizer.average_decay is not None:
            with np.errstate(all="ignore"):
                self._average(optimizer.average_decay, parameters, state, step)

    def _update(self, job: _Job, factor: float, step: int, rate: float, hand: int) -> None:
        part, piece = self._parts[job.part], job.piece
        with np.errstate(all="ignore"):  # of each thread by itself
            limited = self._optimizer.clipping.limit(piece.gradients, factor, job.spares[hand])
            if limited is not piece.gradients:
                piece = piece._replace(gradients=limited)
            part.rule.update(piece, step, rate * part.rate_factor)

    def _bind(self, parameters: Vectors, gradients: Vectors, state: OptimizerState, length: int, hands: int) -> None:
        """Makes the views, for pieces of this length and so many hands, unless they are those of the last step."""
        moments = [vector for vectors in state.values() for vector in vectors.values()]
        vectors = [*parameters.values(), *gradients.values(), *moments]
        same = len(vectors) == len(self._vectors) and all(map(_is, vectors, self._vectors))
        if same and (length, hands) == self._shape:
            return
        self._scratch = _scratch(self._parts, self._layout, length, hands)
        self._jobs = []
        for place, part in enumerate(self._parts):
            for span, shape in part.pieces(length):
                room = [row[: span.stop - span.start].reshape(shape) for row in self._scratch[part.dtype]]
                memory = {name: vector[span].reshape(shape) for name, vector in state[part.dtype].items()}
                values, slopes = (each[part.dtype][span].reshape(shape) for each in (parameters, gradients))
                piece = Piece(values, slopes, memory, room[: part.rule.scratch_count])
                self._jobs.append(_Job(piece, place, room[-hands:]))
        self._vectors, self._shape = vectors, (length, hands)

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


def _scratch(parts: Sequence[Segment], layout: FlatLayout, length: int, hands: int) -> Vectors:
    """Per dtype, rows for the hungriest rule and then one for each hand, as long as the largest piece."""
    rows = hands + max((part.rule.scratch_count for part in parts), default=0)
    room: Mapping[np.dtype[Any], int] = {
        dtype: max([min(size, length), *(part.room for part in parts if part.dtype == dtype)])
        for dtype, size in layout.sizes.items()
    }
    return {dtype: np.empty((rows, size), dtype) for dtype, size in room.items()}
