"""Rules that divide by a running size of the gradient: RMSprop, Adagrad and Adadelta."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backwire_server.optim.elementwise import Array, average, average_square, penalised, subtract_ratio, subtract_scaled
from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, POSITIVE, check_fields
from backwire_server.optim.rule import Piece, Rule


@dataclass(frozen=True, slots=True)
class RMSprop(Rule):
    """Division by the root of the mean square of recent gradients.

    With gradient `g`, parameter `p`, mean square `v`, mean `a` and momentum buffer `m`::

        d = g + weight_decay * p
        v = decay * v + (1 - decay) * d^2
        a = decay * a + (1 - decay) * d                 when centered; else a = 0
        u = d / (sqrt(v - a^2) + epsilon)
        m = momentum * m + u                            with momentum; else m = u
        p = p - learning_rate * m

    Hinton 2012, "Neural Networks for Machine Learning", lecture 6e; centered: Graves 2013, "Generating Sequences With
    Recurrent Neural Networks", https://arxiv.org/abs/1308.0850.

    Attributes:
        decay: The decay of the means, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        momentum: The share of the last update that is kept, in [0, 1).
        centered: Whether to divide by the standard deviation instead.
        weight_decay: The factor of the L2 penalty's gradient, zero or more.
    """

    decay: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    scratch_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_fields(self, decay=DECAY, epsilon=POSITIVE, momentum=DECAY, weight_decay=NOT_NEGATIVE)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `mean_square`, with `centered` also `mean`, with momentum also `momentum`."""
        names = ["mean_square"] + ["mean"] * self.centered + ["momentum"] * (self.momentum > 0)
        return {name: np.zeros_like(vector) for name in names}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:  # noqa: ARG002 - no bias to correct
        """As in the class's formula."""
        p, g, state, (scratch, other) = piece
        direction = penalised(g, p, self.weight_decay, other)
        average_square(state["mean_square"], direction, self.decay, scratch)
        if self.centered:
            average(state["mean"], direction, self.decay, scratch)
        self._size(piece, scratch)
        if self.momentum:
            np.divide(direction, scratch, out=scratch)
            np.multiply(state["momentum"], self.momentum, out=state["momentum"])
            np.add(state["momentum"], scratch, out=state["momentum"])
            subtract_scaled(p, state["momentum"], learning_rate, scratch)
        else:
            subtract_ratio(p, direction, scratch, learning_rate)

    def _size(self, piece: Piece, out: Array) -> None:
        """`sqrt(v - a^2) + epsilon`; rounding may take the difference below 0, which counts as 0."""
        if self.centered:
            np.multiply(piece.state["mean"], piece.state["mean"], out=out)
            np.subtract(piece.state["mean_square"], out, out=out)
            np.maximum(out, 0, out=out)
            np.sqrt(out, out=out)
        else:
            np.sqrt(piece.state["mean_square"], out=out)
        np.add(out, self.epsilon, out=out)


@dataclass(frozen=True, slots=True)
class Adagrad(Rule):
    """Division by the root of the sum of all squared gradients.

    With gradient `g`, parameter `p`, sum `s` and step number `t`::

        d = g + weight_decay * p
        s = s + d^2
        p = p - learning_rate / (1 + (t - 1) * learning_rate_decay) * d / (sqrt(s) + epsilon)

    Duchi et al. 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR 12.

    Attributes:
        learning_rate_decay: How fast the learning rate falls, zero or more.
        initial_accumulator: What the sum starts with, zero or more.
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, zero or more.
    """

    learning_rate_decay: float = 0.0
    initial_accumulator: float = 0.0
    epsilon: float = 1e-10

    scratch_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        ranges = dict.fromkeys(("learning_rate_decay", "initial_accumulator", "weight_decay"), NOT_NEGATIVE)
        check_fields(self, epsilon=POSITIVE, **ranges)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `sum_of_squares`."""
        return {"sum_of_squares": np.full_like(vector, self.initial_accumulator)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        p, g, state, (scratch, other) = piece
        direction = penalised(g, p, self.weight_decay, other)
        np.multiply(direction, direction, out=scratch)
        np.add(state["sum_of_squares"], scratch, out=state["sum_of_squares"])
        np.sqrt(state["sum_of_squares"], out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        subtract_ratio(p, direction, scratch, learning_rate / (1 + (step - 1) * self.learning_rate_decay))


@dataclass(frozen=True, slots=True)
class Adadelta(Rule):
    """Steps in units of the steps before, so that no learning rate needs choosing; 1 is the published one.

    With gradient `g`, parameter `p`, mean squares `v` of gradients and `x` of updates::

        d = g + weight_decay * p
        v = decay * v + (1 - decay) * d^2
        u = sqrt(x + epsilon) / sqrt(v + epsilon) * d
        x = decay * x + (1 - decay) * u^2
        p = p - learning_rate * u

    Zeiler 2012, "ADADELTA: An Adaptive Learning Rate Method", https://arxiv.org/abs/1212.5701.

    Attributes:
        decay: The decay of the means, in [0, 1).
        epsilon: What starts the first step and keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, zero or more.
    """

    decay: float = 0.9
    epsilon: float = 1e-6

    scratch_count: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_fields(self, decay=DECAY, epsilon=POSITIVE, weight_decay=NOT_NEGATIVE)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `mean_square` and `mean_square_update`."""
        return {"mean_square": np.zeros_like(vector), "mean_square_update": np.zeros_like(vector)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:  # noqa: ARG002 - no bias to correct
        """As in the class's formula."""
        p, g, state, (scratch, other, move) = piece
        direction = penalised(g, p, self.weight_decay, other)
        average_square(state["mean_square"], direction, self.decay, scratch)
        self._root(state["mean_square_update"], move)
        self._root(state["mean_square"], scratch)
        np.divide(move, scratch, out=move)
        np.multiply(move, direction, out=move)
        average_square(state["mean_square_update"], move, self.decay, scratch)
        subtract_scaled(p, move, learning_rate, scratch)

    def _root(self, mean_square: Array, out: Array) -> None:
        np.add(mean_square, self.epsilon, out=out)
        np.sqrt(out, out=out)
