"""Optimizers whose steps have a prescribed length: for each element, each parameter or each singular direction."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from backwire._errors import OptimizerError
from backwire._training._optimizers import AdamW, Optimizer, ParameterGroup
from backwire_api.v1 import optimizer_pb2

_SCALINGS = {
    "original": optimizer_pb2.MUON_SCALING_ORIGINAL,
    "match_rms_adamw": optimizer_pb2.MUON_SCALING_MATCH_RMS_ADAMW,
}


@dataclass(frozen=True, slots=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023): every element moves by the learning rate.

    `d = sign(beta1 * m + (1 - beta1) * g)`, `m = beta2 * m + (1 - beta2) * g`, then
    `p = p * (1 - learning_rate * weight_decay) - learning_rate * d`. The learning rate is usually 3 to 10 times smaller
    than AdamW's.

    Attributes:
        beta1: The share of the momentum in the direction, in [0, 1).
        beta2: The decay of the momentum, in [0, 1).
        weight_decay: The decay of the weights themselves, 0 or more.

    Example:
        >>> optimizer = bw.Lion(1e-4, weight_decay=0.1)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "lion"


@dataclass(frozen=True, slots=True)
class LAMB(Optimizer):
    """LAMB (You et al. 2020): Adam with steps in proportion to each parameter's norm, for large batches.

    With m_hat and v_hat as in Adam on the bare gradient, `u = m_hat / (sqrt(v_hat) + epsilon) + weight_decay * p`, then
    `p = p - learning_rate * |p| / |u| * u`; the ratio of the norms is 1 if either is 0.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The strength of the weight decay, 0 or more.

    Example:
        >>> optimizer = bw.LAMB(1e-3, weight_decay=0.01)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "lamb"


@dataclass(frozen=True, slots=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024), for matrices: momentum made orthogonal by a Newton-Schulz iteration.

    `m = momentum * m + (1 - momentum) * g`; the direction is m or with Nesterov `(1 - momentum) * g + momentum * m`,
    made nearly orthogonal; then `p = p * (1 - learning_rate * weight_decay) - learning_rate * f * direction` with f as
    `scaling` says. All other parameters are updated by `fallback`; give matrices that should be too, such as embeddings
    and output layers, a `ParameterGroup`.

    Attributes:
        momentum: The decay of the momentum, in [0, 1).
        nesterov: False to take the momentum itself as the direction.
        weight_decay: The decay of the matrices themselves, 0 or more.
        newton_schulz_steps: The number of iterations, 1 to 100.
        scaling: `"original"` for f = sqrt(max(1, rows / columns)); `"match_rms_adamw"` for
            f = 0.2 * sqrt(max(rows, columns)), with which AdamW's learning rates fit.
        fallback: What updates parameters that are not matrices, and at which learning rate; None for AdamW with its
            defaults at the same learning rate.

    Example:
        >>> optimizer = bw.Muon(0.02, fallback=bw.AdamW(3e-4))
    """

    _: KW_ONLY
    momentum: float = 0.95
    nesterov: bool = True
    weight_decay: float = 0.1
    newton_schulz_steps: int = 5
    scaling: Literal["original", "match_rms_adamw"] = "original"
    fallback: AdamW | None = None

    _algorithm: ClassVar[str] = "muon"

    def __post_init__(self) -> None:
        Optimizer.__post_init__(self)
        if self.scaling not in _SCALINGS:
            raise OptimizerError(
                f"Muon: scaling is {self.scaling!r}, but must be one of {', '.join(map(repr, _SCALINGS))}",
                field="optimizer.scaling",
            )
        if self.fallback is not None:
            ParameterGroup("*", optimizer=self.fallback)  # what a group may not have, a fallback may not either
            self._relative_rate(self.fallback)

    def _write(self, rule: Any) -> None:
        for name in ("momentum", "nesterov", "weight_decay", "newton_schulz_steps"):
            setattr(rule, name, getattr(self, name))
        rule.scaling = _SCALINGS[self.scaling]
        if self.fallback is not None:
            self.fallback._write(rule.fallback)
            rule.fallback_learning_rate_factor = self._relative_rate(self.fallback)
