"""Gradient descent, with momentum or with the sign of it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backwire_server.optim.elementwise import Array, average, decay, penalised, sign, subtract_scaled
from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, SHARE, OptimizerError, check_fields
from backwire_server.optim.rule import Piece, Rule


@dataclass(frozen=True, slots=True)
class Sgd(Rule):
    """Gradient descent with heavy-ball or Nesterov momentum.

    With gradient `g`, parameter `p` and momentum buffer `m`::

        d = g + weight_decay * p
        m = d                                       at the first step
        m = momentum * m + (1 - dampening) * d      after it
        p = p - learning_rate * m                   heavy ball
        p = p - learning_rate * (d + momentum * m)  Nesterov
        p = p - learning_rate * d                   without momentum

    Polyak 1964, "Some methods of speeding up the convergence of iteration methods"; Nesterov's form as in Sutskever et
    al. 2013, "On the importance of initialization and momentum in deep learning".

    Attributes:
        momentum: The share of the last update that is kept, in [0, 1). 0 needs no state.
        dampening: The share of the gradient that does not enter the momentum, in [0, 1].
        nesterov: Whether to look ahead; needs a momentum and no dampening.
        weight_decay: The factor of the L2 penalty's gradient, zero or more.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    scratch_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_fields(self, momentum=DECAY, dampening=SHARE, weight_decay=NOT_NEGATIVE)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise OptimizerError(
                "nesterov",
                f"nesterov needs a momentum above 0 and no dampening, got momentum {self.momentum:g} and dampening "
                f"{self.dampening:g}; set both or leave nesterov off",
            )

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `momentum`, or nothing without momentum."""
        return {"momentum": np.zeros_like(vector)} if self.momentum else {}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        p, g, state, (scratch, other) = piece
        direction = penalised(g, p, self.weight_decay, scratch)
        if self.momentum:
            buffer = state["momentum"]
            self._accumulate(buffer, direction, other, step)
            direction = self._ahead(buffer, direction, other) if self.nesterov else buffer
        subtract_scaled(p, direction, learning_rate, other)

    def _accumulate(self, buffer: Array, direction: Array, scratch: Array, step: int) -> None:
        if step == 1:
            np.copyto(buffer, direction)
            return
        np.multiply(buffer, self.momentum, out=buffer)
        np.multiply(direction, 1 - self.dampening, out=scratch)
        np.add(buffer, scratch, out=buffer)

    def _ahead(self, buffer: Array, direction: Array, scratch: Array) -> Array:
        np.multiply(buffer, self.momentum, out=scratch)
        np.add(direction, scratch, out=scratch)
        return scratch


@dataclass(frozen=True, slots=True)
class Lion(Rule):
    """Evolved sign momentum: every element moves by the learning rate, in the direction of an average gradient.

    With gradient `g`, parameter `p` and momentum `m`::

        d = sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        p = p * (1 - learning_rate * weight_decay) - learning_rate * d

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", https://arxiv.org/abs/2302.06675.

    Attributes:
        beta1: The share of the momentum in the direction, in [0, 1).
        beta2: The decay of the momentum, in [0, 1).
        weight_decay: The decay of the weights relative to the learning rate, zero or more.
    """

    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        check_fields(self, beta1=DECAY, beta2=DECAY, weight_decay=NOT_NEGATIVE)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `momentum`."""
        return {"momentum": np.zeros_like(vector)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:  # noqa: ARG002 - no bias to correct
        """As in the class's formula."""
        p, g, state, (scratch,) = piece
        decay(p, learning_rate * self.weight_decay)
        np.subtract(state["momentum"], g, out=scratch)
        np.multiply(scratch, self.beta1, out=scratch)
        np.add(scratch, g, out=scratch)
        sign(scratch)
        subtract_scaled(p, scratch, learning_rate, scratch)
        average(state["momentum"], g, self.beta2, scratch)
