"""Optimizers that divide by a running size of the gradient, besides Adam and AdamW."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from backwire._training._optimizers import Optimizer


@dataclass(frozen=True, slots=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012).

    `d = g + weight_decay * p`, mean square v and mean a of d, `u = d / (sqrt(v - a²) + epsilon)` with a = 0 unless
    centered; with momentum `m = momentum * m + u`, else `m = u`; then `p = p - learning_rate * m`.

    Attributes:
        decay: The decay of the means, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        momentum: The share of the last update that is kept, in [0, 1).
        centered: True divides by the standard deviation (Graves 2013).
        weight_decay: The factor of the L2 penalty's gradient, 0 or more.

    Example:
        >>> optimizer = bw.RMSprop(1e-3, momentum=0.9)
    """

    _: KW_ONLY
    decay: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "rmsprop"


@dataclass(frozen=True, slots=True)
class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011).

    `d = g + weight_decay * p`, `s = s + d²`, then at step t
    `p = p - learning_rate / (1 + (t - 1) * learning_rate_decay) * d / (sqrt(s) + epsilon)`.

    Attributes:
        learning_rate_decay: How fast the learning rate falls, 0 or more.
        initial_accumulator: What the sum of squares starts with, 0 or more.
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, 0 or more.

    Example:
        >>> optimizer = bw.Adagrad(0.01)
    """

    _: KW_ONLY
    learning_rate_decay: float = 0.0
    initial_accumulator: float = 0.0
    epsilon: float = 1e-10
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "adagrad"


@dataclass(frozen=True, slots=True)
class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): steps in units of earlier steps; the publication's learning rate is 1.

    `d = g + weight_decay * p`, mean square v of d, `u = sqrt(x + epsilon) / sqrt(v + epsilon) * d` with the mean square
    x of earlier u, then `p = p - learning_rate * u`.

    Attributes:
        decay: The decay of the means, in [0, 1).
        epsilon: What starts the first step and keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, 0 or more.

    Example:
        >>> optimizer = bw.Adadelta()
    """

    learning_rate: float = 1.0
    _: KW_ONLY
    decay: float = 0.9
    epsilon: float = 1e-6
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "adadelta"


@dataclass(frozen=True, slots=True)
class Adamax(Optimizer):
    """Adamax (Kingma and Ba 2015, section 7.1): Adam under the infinity norm.

    `d = g + weight_decay * p`, first moment m as in Adam, `u = max(beta2 * u, |d| + epsilon)`, then
    `p = p - learning_rate * m_hat / u`.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the norm, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, 0 or more.

    Example:
        >>> optimizer = bw.Adamax(2e-3)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "adamax"


@dataclass(frozen=True, slots=True)
class NAdam(Optimizer):
    """NAdam (Dozat 2016): Adam whose first moment looks one step ahead.

    The momentum grows with the step number t as `beta1 * (1 - 0.96^(t * momentum_decay) / 2)`.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The strength of the weight decay, 0 or more.
        momentum_decay: How fast the momentum grows, 0 or more.
        decoupled: True shrinks the weights as AdamW does, instead of through the gradient.

    Example:
        >>> optimizer = bw.NAdam(2e-3)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    momentum_decay: float = 4e-3
    decoupled: bool = False

    _algorithm: ClassVar[str] = "nadam"


@dataclass(frozen=True, slots=True)
class RAdam(Optimizer):
    """RAdam (Liu et al. 2020): Adam that adapts only once the variance of its second moment is bounded.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The strength of the weight decay, 0 or more.
        decoupled: True shrinks the weights as AdamW does, instead of through the gradient.

    Example:
        >>> optimizer = bw.RAdam(1e-3, decoupled=True, weight_decay=0.01)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    _algorithm: ClassVar[str] = "radam"
