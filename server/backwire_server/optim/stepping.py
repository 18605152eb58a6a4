"""Applies an optimizer, step after step, to vectors that mostly stay where they are."""

from collections.abc import Mapping, Sequence
from functools import partial
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
from backwire_server.optim.sharing import ALONE, Hands

Array = NDArray[Any]


class _Job(NamedTuple):
    """A piece to update, the place of its stretch among all, and room for its gradients when they are clipped.

    Each hand has a piece and room of its own, with the same values.
    """

    pieces: Sequence[Piece]
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
        self._scratch: list[Vectors] = []

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
            hands: What shares the work; the results are the same for any.

        Raises:
            OptimizerError: `learning_rate` is negative or not finite.
        """
        optimizer = self._optimizer
        rate = optimizer.rate(step) if learning_rate is None else checked("learning_rate", learning_rate, NOT_NEGATIVE)
        self._bind(parameters, gradients, state, hands.count)
        slopes = [gradients[part.dtype][part.span] for part in self._parts]
        factors = optimizer.clipping.factors(slopes)
        hands.share([partial(self._update, job, factors[job.part], step, rate) for job in self._jobs])
        if optimizer.average_decay is not None:
            with np.errstate(all="ignore"):
                self._average(optimizer.average_decay, parameters, state, step)

    def _update(self, job: _Job, factor: float, step: int, rate: float, hand: int) -> None:
        part, piece = self._parts[job.part], job.pieces[hand]
        with np.errstate(all="ignore"):  # of each thread by itself
            limited = self._optimizer.clipping.limit(piece.gradients, factor, job.spares[hand])
            if limited is not piece.gradients:
                piece = piece._replace(gradients=limited)
            part.rule.update(piece, step, rate * part.rate_factor)

    def _bind(self, parameters: Vectors, gradients: Vectors, state: OptimizerState, hands: int) -> None:
        """Makes the views, unless they are those of the last step, and there were as many hands."""
        moments = [vector for vectors in state.values() for vector in vectors.values()]
        vectors = [*parameters.values(), *gradients.values(), *moments]
        same = len(vectors) == len(self._vectors) and all(map(_is, vectors, self._vectors))
        if same and hands <= len(self._scratch):
            return
        self._scratch = [_scratch(self._parts, self._layout) for _ in range(max(hands, len(self._scratch)))]
        self._jobs = []
        for place, part in enumerate(self._parts):
            for span, shape in part.pieces():
                length = span.stop - span.start
                rooms = [[row[:length].reshape(shape) for row in each[part.dtype]] for each in self._scratch]
                memory = {name: vector[span].reshape(shape) for name, vector in state[part.dtype].items()}
                values, slopes = (each[part.dtype][span].reshape(shape) for each in (parameters, gradients))
                pieces = [Piece(values, slopes, memory, room[:-1][: part.rule.scratch_count]) for room in rooms]
                self._jobs.append(_Job(pieces, place, [room[-1] for room in rooms]))
        self._vectors = vectors

    def _average(self, decay: float, parameters: Vectors, state: OptimizerState, step: int) -> None:
        for dtype, vector in parameters.items():
            mean = state[dtype][AVERAGE]
            for part in blocks(0, vector.size):
                if step == 1:
                    np.copyto(mean[part], vector[part])
                else:
                    room = self._scratch[0][dtype][0, : part.stop - part.start]
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
