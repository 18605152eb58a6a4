"""Adam and AdamW."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from backwire_server.optim import compiled
from backwire_server.optim.elementwise import Array, average, average_square, decay, penalised, subtract_ratio
from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, POSITIVE, check_fields
from backwire_server.optim.rule import Piece, Rule


@dataclass(frozen=True, slots=True)
class Adam(Rule):
    """Adaptive moments.

    With gradient `g`, parameter `p`, moments `m` and `v` and step number `t`::

        d = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d^2
        w = max(w, v)                          with amsgrad; else w = v
        p = p - learning_rate * (m / (1 - beta1^t)) / (sqrt(w / (1 - beta2^t)) + epsilon)

    Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", https://arxiv.org/abs/1412.6980; amsgrad: Reddi et
    al. 2018, "On the Convergence of Adam and Beyond", https://openreview.net/forum?id=ryQu7f-RZ.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, zero or more.
        amsgrad: Whether to divide by the largest second moment so far instead of the last.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    amsgrad: bool = False

    scratch_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_fields(self, beta1=DECAY, beta2=DECAY, epsilon=POSITIVE, weight_decay=NOT_NEGATIVE)

    def in_one_pass(self, dtype: "np.dtype[Any]") -> bool:
        """Whether it is compiled, and the penalty's gradient needs no room."""
        return self.weight_decay == 0 and _kernel(self, dtype, 0) is not None

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment`, `second_moment` and, with amsgrad, `largest_second_moment`."""
        return _moments(self, vector)

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        direction = penalised(piece.gradients, piece.parameters, self.weight_decay, piece.scratch[1])
        _descend(self, piece, direction, step, learning_rate)


@dataclass(frozen=True, slots=True)
class AdamW(Rule):
    """Adam with decoupled weight decay: the weights shrink by themselves, the gradient's moments do not see it.

    With the moments of Adam on the bare gradient::

        p = p * (1 - learning_rate * weight_decay)
        p = p - learning_rate * (m / (1 - beta1^t)) / (sqrt(w / (1 - beta2^t)) + epsilon)

    Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", https://arxiv.org/abs/1711.05101.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The decay of the weights relative to the learning rate, zero or more.
        amsgrad: Whether to divide by the largest second moment so far instead of the last.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = field(default=0.01, kw_only=True)
    amsgrad: bool = False

    def __post_init__(self) -> None:
        check_fields(self, beta1=DECAY, beta2=DECAY, epsilon=POSITIVE, weight_decay=NOT_NEGATIVE)

    def in_one_pass(self, dtype: "np.dtype[Any]") -> bool:
        """Whether it is compiled."""
        return _kernel(self, dtype, 0) is not None

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment`, `second_moment` and, with amsgrad, `largest_second_moment`."""
        return _moments(self, vector)

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        decay(piece.parameters, learning_rate * self.weight_decay)
        _descend(self, piece, piece.gradients, step, learning_rate)


def _kernel(rule: Adam | AdamW, dtype: "np.dtype[Any]", size: int) -> compiled.Kernel | None:
    """What does the rest for so many elements in one pass, once it is compiled."""
    return None if rule.amsgrad else compiled.adam(dtype, size)


def _moments(rule: Adam | AdamW, vector: Array) -> dict[str, Array]:
    names = ["first_moment", "second_moment"] + ["largest_second_moment"] * rule.amsgrad
    return {name: np.zeros_like(vector) for name in names}


def _descend(rule: Adam | AdamW, piece: Piece, direction: Array, step: int, learning_rate: float) -> None:
    """Updates the moments with `direction` and subtracts the bias-corrected step.

    The correction of v is moved out of the division: `sqrt(v) / c + epsilon = (sqrt(v) + epsilon * c) / c`.
    """
    first, second, scratch = piece.state["first_moment"], piece.state["second_moment"], piece.scratch[0]
    correction = math.sqrt(1 - rule.beta2**step)
    rate = learning_rate * correction / (1 - rule.beta1**step)
    if kernel := _kernel(rule, first.dtype, first.size):
        figures = (1 - rule.beta1, rule.beta2, 1 - rule.beta2, rule.epsilon * correction, rate)
        kernel(piece.parameters, direction, first, second, *map(first.dtype.type, figures))
        return
    average(first, direction, rule.beta1, scratch)
    average_square(second, direction, rule.beta2, scratch)
    if rule.amsgrad:
        second = np.maximum(second, piece.state["largest_second_moment"], out=piece.state["largest_second_moment"])
    np.sqrt(second, out=scratch)
    np.add(scratch, rule.epsilon * correction, out=scratch)
    subtract_ratio(piece.parameters, first, scratch, rate)
