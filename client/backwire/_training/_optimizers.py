"""Optimizers: how Step turns accumulated gradients into new parameters, which the server does."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

from backwire import _html
from backwire._errors import OptimizerError
from backwire._training._figures import DECAY, NOT_NEGATIVE, POSITIVE, POSITIVE_OR_NONE, SHARE, Range, check_figures
from backwire._training._schedules import Schedule
from backwire_api.v1 import optimizer_pb2

# What the figures of all optimizers must be, by their name.
_RANGES: Mapping[str, Range] = {
    "learning_rate": NOT_NEGATIVE,
    "clip_norm": POSITIVE_OR_NONE,
    "clip_parameter_norm": POSITIVE_OR_NONE,
    "clip_value": POSITIVE_OR_NONE,
    "average_decay": DECAY,
    "momentum": DECAY,
    "dampening": SHARE,
    "beta1": DECAY,
    "beta2": DECAY,
    "epsilon": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "decay": DECAY,
    "momentum_decay": NOT_NEGATIVE,
    "learning_rate_decay": NOT_NEGATIVE,
    "learning_rate_factor": NOT_NEGATIVE,
    "initial_accumulator": NOT_NEGATIVE,
    "newton_schulz_steps": (lambda figure: isinstance(figure, int) and 1 <= figure <= 100, "a whole number, 1 to 100"),
}


_COMMON = ("schedule", "groups", "clip_norm", "clip_parameter_norm", "clip_value", "average_decay")
_GROUPS = "optimizer.groups"


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What all update rules have; use one of the subclasses. Raises OptimizerError for a figure outside its range.

    Attributes:
        learning_rate: The step size, 0 or more; `Session.step(learning_rate=...)` replaces it for one step.
        schedule: How the step size depends on the step number; None for constant.
        groups: What holds for some parameters only; the first group whose pattern matches a name counts.
        clip_norm: All gradients together are scaled down to at most this L2 norm; None for no limit.
        clip_parameter_norm: The gradient of each parameter is scaled down to at most this L2 norm, before `clip_norm`;
            None for no limit.
        clip_value: Every element of the gradients is limited to ±this, before the norms; None for no limit.
        average_decay: The decay of an exponential moving average of the parameters, in [0, 1); None keeps no average.
    """

    learning_rate: float
    _: KW_ONLY
    schedule: Schedule | None = None
    groups: Sequence["ParameterGroup"] = ()
    clip_norm: float | None = None
    clip_parameter_norm: float | None = None
    clip_value: float | None = None
    average_decay: float | None = None

    _algorithm: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        check_figures(self, _RANGES, "optimizer")
        for group in self.groups:
            if group.optimizer:
                self._relative_rate(group.optimizer)

    def _repr_html_(self) -> str:
        """What a notebook shows: the settings that differ from their defaults, and the learning rate."""
        told = [(each.name, getattr(self, each.name)) for each in fields(self)]
        defaults = {each.name: each.default for each in fields(self)}
        rows = [(name, value) for name, value in told if value not in (defaults[name], ())]
        return _html.heading(type(self).__name__) + _html.table(("setting", "value"), rows)

    def to_proto(self) -> optimizer_pb2.Optimizer:
        """Returns the message `backwire_api.v1.Optimizer`."""
        message = optimizer_pb2.Optimizer(learning_rate=self.learning_rate, average_decay=self.average_decay)
        limits = {"global_norm": self.clip_norm, "norm": self.clip_parameter_norm, "value": self.clip_value}
        for name, limit in limits.items():
            if limit is not None:
                setattr(message.clipping, name, limit)
        if self.schedule is not None:
            message.schedule.CopyFrom(self.schedule.to_proto())
        message.groups.extend(self._group(group) for group in self.groups)
        self._write(getattr(message, self._algorithm))
        return message

    def _group(self, group: "ParameterGroup") -> optimizer_pb2.ParameterGroup:
        message = optimizer_pb2.ParameterGroup(
            pattern=group.pattern,
            learning_rate_factor=None if group.frozen else group.learning_rate_factor,
            weight_decay=group.weight_decay,
            frozen=group.frozen,
        )
        if group.optimizer:
            message.learning_rate_factor = self._relative_rate(group.optimizer)
            group.optimizer._write(getattr(message.rule, group.optimizer._algorithm))
        return message

    def _relative_rate(self, other: "Optimizer") -> float:
        """The other's learning rate relative to this one's, which is what the contract knows."""
        if other.learning_rate == self.learning_rate:
            return 1.0
        if self.learning_rate == 0:
            raise OptimizerError(
                f"{type(self).__name__}: learning_rate is 0, and that of {type(other).__name__} is relative to it; "
                "give one above 0",
                field="optimizer.learning_rate",
            )
        return other.learning_rate / self.learning_rate

    def _write(self, rule: Any) -> None:
        """Writes the update rule into its message."""
        rule.SetInParent()
        for field in fields(self):
            if field.name in rule.DESCRIPTOR.fields_by_name:
                setattr(rule, field.name, getattr(self, field.name))


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """How parameters with matching names differ from the rest. Raises OptimizerError for settings that do not fit.

    Attributes:
        pattern: A glob over the whole name: `*` matches any characters, dots and slashes too, `?` one, `[ab]` one of
            those listed. A pattern that matches no trainable parameter is refused when the session is created.
        learning_rate_factor: What the learning rate is multiplied by, 0 or more.
        weight_decay: Replaces the optimizer's weight decay, 0 or more; None keeps it.
        frozen: True to leave the parameters as they are; goes with no other setting.
        optimizer: Replaces the update rule and the learning rate, which then has the same schedule; goes with no other
            setting, and has none besides those of its rule.

    Example:
        >>> plain = bw.ParameterGroup("*bias", weight_decay=0)
        >>> head = bw.ParameterGroup("head/*", optimizer=bw.AdamW(3e-4))
        >>> optimizer = bw.Muon(0.02, groups=[plain, head])
    """

    pattern: str
    _: KW_ONLY
    learning_rate_factor: float = 1.0
    weight_decay: float | None = None
    frozen: bool = False
    optimizer: Optimizer | None = None

    def __post_init__(self) -> None:
        if not self.pattern:
            raise OptimizerError("a group's pattern is empty; give a name or a glob such as '*bias'", field=_GROUPS)
        check_figures(self, _RANGES, _GROUPS)
        settings = [self.learning_rate_factor != 1 or self.weight_decay is not None, self.frozen, bool(self.optimizer)]
        if sum(settings) > 1:
            raise OptimizerError(
                f"group {self.pattern!r}: frozen or an optimizer goes with no other setting; drop one of them",
                field=_GROUPS,
            )
        if self.optimizer and any(getattr(self.optimizer, name) not in (None, ()) for name in _COMMON):
            raise OptimizerError(
                f"group {self.pattern!r}: {', '.join(_COMMON)} hold for all groups; give them to the main optimizer",
                field=_GROUPS,
            )


@dataclass(frozen=True, slots=True)
class SGD(Optimizer):
    """Gradient descent, with momentum and Nesterov's variant.

    `d = g + weight_decay * p`; with momentum `m = momentum * m + (1 - dampening) * d` (the first step takes `m = d`)
    and `d = m`, or with Nesterov `d = d + momentum * m`; then `p = p - learning_rate * d`.

    Attributes:
        momentum: The share of the last update that is kept, in [0, 1).
        dampening: The share of the gradient that does not enter the momentum, in [0, 1].
        nesterov: True for Nesterov's accelerated gradient; needs momentum and no dampening.
        weight_decay: The factor of the L2 penalty's gradient, 0 or more.

    Example:
        >>> optimizer = bw.SGD(0.1, momentum=0.9, nesterov=True)
    """

    _: KW_ONLY
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    _algorithm: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        Optimizer.__post_init__(self)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise OptimizerError("SGD: nesterov needs a momentum above 0 and no dampening", field="optimizer.nesterov")


@dataclass(frozen=True, slots=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    `d = g + weight_decay * p`, moments m and v of d and d², bias corrected, then
    `p = p - learning_rate * m_hat / (sqrt(v_hat) + epsilon)`.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The factor of the L2 penalty's gradient, 0 or more.
        amsgrad: True divides by the largest second moment so far instead of the last (Reddi et al. 2018).

    Example:
        >>> optimizer = bw.Adam(1e-3, clip_norm=1.0)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    _algorithm: ClassVar[str] = "adam"


@dataclass(frozen=True, slots=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019): Adam with decoupled weight decay.

    First `p = p * (1 - learning_rate * weight_decay)`, then Adam's update from the bare gradient.

    Attributes:
        beta1: The decay of the first moment, in [0, 1).
        beta2: The decay of the second moment, in [0, 1).
        epsilon: The term that keeps the division finite, above 0.
        weight_decay: The decay of the weights themselves, 0 or more.
        amsgrad: True divides by the largest second moment so far instead of the last (Reddi et al. 2018).

    Example:
        >>> optimizer = bw.AdamW(3e-4, weight_decay=0.1)
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False

    _algorithm: ClassVar[str] = "adamw"
