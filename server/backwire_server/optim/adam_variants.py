"""Rules that change one thing about Adam: its norm (Adamax), its momentum (NAdam), its first steps (RAdam)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from backwire_server.optim.elementwise import (
    Array,
    average,
    average_square,
    decay,
    penalised,
    subtract_ratio,
    subtract_scaled,
)
from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, POSITIVE, check_fields
from backwire_server.optim.rule import Piece, Rule


@dataclass(frozen=True, slots=True)
class Adamax(Rule):
    """Adam under the infinity norm.

    With gradient `g`, parameter `p`, moment `m`, norm `u` and step number `t`::

        d = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        u = max(beta2 * u, |d| + epsilon)
        p = p - learning_rate / (1 - beta1^t) * m / u

    Kingma and Ba 2015, section 7.1, https://arxiv.org/abs/1412.6980.

    Attributes:
        beta1: The decay of the moment, in [0, 1).
        beta2: The decay of the norm, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, zero or more.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    scratch_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_fields(self, beta1=DECAY, beta2=DECAY, epsilon=POSITIVE, weight_decay=NOT_NEGATIVE)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment` and `infinity_norm`."""
        return {"first_moment": np.zeros_like(vector), "infinity_norm": np.zeros_like(vector)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        p, g, state, (scratch, other) = piece
        direction = penalised(g, p, self.weight_decay, other)
        moment, norm = state["first_moment"], state["infinity_norm"]
        average(moment, direction, self.beta1, scratch)
        np.absolute(direction, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.multiply(norm, self.beta2, out=norm)
        np.maximum(norm, scratch, out=norm)
        np.divide(moment, norm, out=scratch)
        subtract_scaled(p, scratch, learning_rate / (1 - self.beta1**step), scratch)


@dataclass(frozen=True, slots=True)
class NAdam(Rule):
    """Adam with Nesterov momentum.

    With the moments `m` and `v` of Adam and step number `t`::

        mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2)
        n = mu_{t+1} * m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) * d / (1 - mu_1 ... mu_t)
        p = p - learning_rate * n / (sqrt(v / (1 - beta2^t)) + epsilon)

    Dozat 2016, "Incorporating Nesterov Momentum into Adam", https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The strength of the weight decay, zero or more.
        momentum_decay: How fast the momentum grows from beta1 / 2 to beta1, zero or more.
        decoupled: Whether the weights shrink by themselves, as in AdamW, instead of through the gradient.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 4e-3
    decoupled: bool = False

    scratch_count: ClassVar[int] = 3

    def __post_init__(self) -> None:
        ranges = {"weight_decay": NOT_NEGATIVE, "momentum_decay": NOT_NEGATIVE}
        check_fields(self, beta1=DECAY, beta2=DECAY, epsilon=POSITIVE, **ranges)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment` and `second_moment`."""
        return {"first_moment": np.zeros_like(vector), "second_moment": np.zeros_like(vector)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        p, state, (scratch, other, ahead) = piece.parameters, piece.state, piece.scratch
        direction = _direction(self, piece, learning_rate, other)
        first, second = state["first_moment"], state["second_moment"]
        average(first, direction, self.beta1, scratch)
        average_square(second, direction, self.beta2, scratch)
        past, product = _momentum_product(self, step), _momentum_product(self, step + 1)
        np.multiply(first, _momentum(self, step + 1) / (1 - product), out=ahead)
        np.multiply(direction, (1 - _momentum(self, step)) / (1 - past), out=scratch)
        np.add(ahead, scratch, out=ahead)
        np.divide(second, 1 - self.beta2**step, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        subtract_ratio(p, ahead, scratch, learning_rate)


@dataclass(frozen=True, slots=True)
class RAdam(Rule):
    """Adam that holds back its adaptive step until the variance of the second moment is bounded.

    With the moments `m` and `v` of Adam, step number `t` and `R = 2 / (1 - beta2) - 1`::

        r_t = R - 2 * t * beta2^t / (1 - beta2^t)
        c = sqrt((r_t - 4) (r_t - 2) R / ((R - 4) (R - 2) r_t))
        p = p - learning_rate * m / (1 - beta1^t) * c * sqrt(1 - beta2^t) / (sqrt(v) + epsilon)   if r_t > 5
        p = p - learning_rate * m / (1 - beta1^t)                                                 otherwise

    Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond", https://arxiv.org/abs/1908.03265.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The strength of the weight decay, zero or more.
        decoupled: Whether the weights shrink by themselves, as in AdamW, instead of through the gradient.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decoupled: bool = False

    scratch_count: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_fields(self, beta1=DECAY, beta2=DECAY, epsilon=POSITIVE, weight_decay=NOT_NEGATIVE)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment` and `second_moment`."""
        return {"first_moment": np.zeros_like(vector), "second_moment": np.zeros_like(vector)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        p, state, (scratch, other) = piece.parameters, piece.state, piece.scratch
        direction = _direction(self, piece, learning_rate, other)
        first, second = state["first_moment"], state["second_moment"]
        average(first, direction, self.beta1, scratch)
        average_square(second, direction, self.beta2, scratch)
        rate = learning_rate / (1 - self.beta1**step)
        if rectification := self._rectification(step):
            np.sqrt(second, out=scratch)
            np.add(scratch, self.epsilon, out=scratch)
            subtract_ratio(p, first, scratch, rate * rectification * math.sqrt(1 - self.beta2**step))
        else:
            subtract_scaled(p, first, rate, scratch)

    def _rectification(self, step: int) -> float:
        """The factor c of the formula; 0 while the variance is unbounded."""
        limit, power = 2 / (1 - self.beta2) - 1, math.pow(self.beta2, step)
        length = limit - 2 * step * power / (1 - power)
        if length <= 5:
            return 0.0
        return math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))


def _direction(rule: NAdam | RAdam, piece: Piece, learning_rate: float, scratch: Array) -> Array:
    """Applies the weight decay in the way the rule asks for, and returns what enters the moments."""
    if rule.decoupled:
        decay(piece.parameters, learning_rate * rule.weight_decay)
        return piece.gradients
    return penalised(piece.gradients, piece.parameters, rule.weight_decay, scratch)


def _momentum(rule: NAdam, step: int) -> float:
    return rule.beta1 * (1 - 0.5 * math.pow(0.96, step * rule.momentum_decay))


@lru_cache(maxsize=256)
def _momentum_product(rule: NAdam, step: int) -> float:
    """The product of the momenta of steps 1 to `step`; 0 once it is too small to change 1 - product."""
    product = 1.0
    for past in range(1, step + 1):
        product *= _momentum(rule, past)
        if product < 1e-18:
            return 0.0
    return product
