"""Rules that look at a parameter as a whole: LAMB at its norm, Muon at its singular vectors."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import numpy as np

from backwire_server.optim.adam import AdamW
from backwire_server.optim.elementwise import Array, average, average_square, decay, subtract_scaled
from backwire_server.optim.errors import DECAY, NOT_NEGATIVE, POSITIVE, OptimizerError, check_fields
from backwire_server.optim.gradients import norm
from backwire_server.optim.rule import Piece, Rule


@dataclass(frozen=True, slots=True)
class Lamb(Rule):
    """Adam with a step as long as the parameter itself, layer by layer; made for large batches.

    With the moments `m` and `v` of Adam on the bare gradient, parameter `p` and step number `t`::

        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay * p
        p = p - learning_rate * |p| / |u| * u        |.| over the whole parameter; |p| / |u| is 1 where either is 0

    You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    https://arxiv.org/abs/1904.00962.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The strength of the weight decay, zero or more.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6

    scratch_count: ClassVar[int] = 2
    per_tensor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self, beta1=DECAY, beta2=DECAY, epsilon=POSITIVE, weight_decay=NOT_NEGATIVE)

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment` and `second_moment`."""
        return {"first_moment": np.zeros_like(vector), "second_moment": np.zeros_like(vector)}

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """As in the class's formula."""
        p, g, state, (scratch, move) = piece
        average(state["first_moment"], g, self.beta1, scratch)
        average_square(state["second_moment"], g, self.beta2, scratch)
        np.divide(state["second_moment"], 1 - self.beta2**step, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.divide(state["first_moment"], 1 - self.beta1**step, out=move)
        np.divide(move, scratch, out=move)
        np.multiply(p, self.weight_decay, out=scratch)
        np.add(move, scratch, out=move)
        size, length = norm(p), norm(move)
        trust = size / length if size and length else 1.0
        subtract_scaled(p, move, learning_rate * trust, scratch)


class MuonScaling(Enum):
    """How Muon's learning rate grows with the shape of a matrix of `m` rows and `n` columns."""

    ORIGINAL = "original"
    """By `sqrt(max(1, m / n))`, so that updates have the same spectral effect whatever the shape."""

    MATCH_RMS_ADAMW = "match_rms_adamw"
    """By `0.2 * sqrt(max(m, n))`, so that updates are as large as AdamW's and its learning rates can be used."""


@dataclass(frozen=True, slots=True)
class Muon(Rule):
    """Momentum, orthogonalised: every singular direction of a matrix's update gets about the same length.

    For a matrix `p` with gradient `g`, momentum `m` and `f` as `scaling` says::

        m = momentum * m + (1 - momentum) * g
        d = (1 - momentum) * g + momentum * m        Nesterov; else d = m
        X = d / |d|                                  Frobenius norm; transposed if it has more rows than columns
        A = X X^T,  X = a X + (b A + c A A) X        newton_schulz_steps times; then transposed back
        p = p * (1 - learning_rate * weight_decay) - learning_rate * f * X

    with (a, b, c) = (3.4445, -4.7750, 2.0315). All is computed in the dtype of the parameter. A parameter that is not a
    matrix is updated by `fallback` at its own learning rate. Embeddings and output layers, which are matrices too, are
    usually trained by another rule: give them a parameter group.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon/; MATCH_RMS_ADAMW: Liu et al. 2025, "Muon is Scalable for LLM Training",
    https://arxiv.org/abs/2502.16982.

    Attributes:
        momentum: The decay of the momentum, in [0, 1).
        nesterov: Whether to look ahead.
        weight_decay: The decay of matrices relative to the learning rate, zero or more.
        newton_schulz_steps: How often the polynomial is applied, 1 to 100.
        scaling: How the learning rate depends on the shape.
        fallback: The rule for parameters that are not matrices.
        fallback_learning_rate_factor: Its learning rate relative to that of matrices, zero or more.
    """

    momentum: float = 0.95
    nesterov: bool = True
    weight_decay: float = field(default=0.1, kw_only=True)
    newton_schulz_steps: int = 5
    scaling: MuonScaling = MuonScaling.ORIGINAL
    fallback: AdamW = field(default_factory=AdamW)
    fallback_learning_rate_factor: float = 1.0

    scratch_count: ClassVar[int] = 4
    per_tensor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self, momentum=DECAY, weight_decay=NOT_NEGATIVE, fallback_learning_rate_factor=NOT_NEGATIVE)
        if not 1 <= self.newton_schulz_steps <= 100:
            raise OptimizerError(
                "newton_schulz_steps", f"newton_schulz_steps is {self.newton_schulz_steps}; it must be 1 to 100"
            )

    def init(self, vector: Array) -> dict[str, Array]:
        """State: `first_moment`, the momentum; AdamW as the fallback uses the same vector for its first moment."""
        return {"first_moment": np.zeros_like(vector)}

    def for_shape(self, shape: tuple[int, ...]) -> tuple[Rule, float]:
        """This rule for a matrix, `fallback` for all else."""
        return (self, 1.0) if len(shape) == 2 else (self.fallback, self.fallback_learning_rate_factor)

    def update(self, piece: Piece, step: int, learning_rate: float) -> None:  # noqa: ARG002 - no bias to correct
        """As in the class's formula."""
        p, g, state, (scratch, *work) = piece
        direction = state["first_moment"]
        average(direction, g, self.momentum, scratch)
        if self.nesterov:
            np.subtract(direction, g, out=scratch)
            np.multiply(scratch, self.momentum, out=scratch)
            direction = np.add(g, scratch, out=scratch)
        wide = direction.shape[0] <= direction.shape[1]
        update = _orthogonalise(direction if wide else direction.T, work, self.newton_schulz_steps)
        decay(p, learning_rate * self.weight_decay)
        subtract_scaled(p, update if wide else update.T, learning_rate * self._scale(p.shape), scratch)

    def _scale(self, shape: tuple[int, ...]) -> float:
        rows, columns = shape
        if self.scaling is MuonScaling.MATCH_RMS_ADAMW:
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1, rows / columns)) if columns else 1.0


_A, _B, _C = 3.4445, -4.7750, 2.0315  # the polynomial's coefficients, from the publication


def _orthogonalise(matrix: Array, work: list[Array], steps: int) -> Array:
    """The matrix, no taller than wide, with its singular values moved near 1; in one of the three `work` arrays.

    Each has as many elements as the matrix, in any shape; `then` and `square` share one, as they are never both needed.
    """
    rows = matrix.shape[0]
    now, then = (array.reshape(matrix.shape) for array in work[:2])
    gram, square = (array.reshape(-1)[: rows * rows].reshape(rows, rows) for array in (work[2], work[1]))
    np.copyto(now, matrix)
    np.divide(now, max(norm(now), 1e-7), out=now)
    for _ in range(steps):
        np.matmul(now, now.T, out=gram)
        np.matmul(gram, gram, out=square)
        np.multiply(square, _C, out=square)
        np.multiply(gram, _B, out=gram)
        np.add(gram, square, out=gram)
        np.matmul(gram, now, out=then)
        np.multiply(now, _A, out=now)
        np.add(now, then, out=now)
    return now
