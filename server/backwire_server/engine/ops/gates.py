"""The activation functions that RNN, GRU and LSTM name in their attributes."""

from collections.abc import Callable, Iterator, Sequence

from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.values import O, Value

Gate = Callable[[Value], Value]

# The formula, and the defaults of the parameters that it takes: none, alpha, or alpha and beta.
FORMULAS: dict[str, tuple[Callable[..., Value], tuple[float, ...]]] = {
    "Relu": (lambda x: O.Relu(x), ()),
    "Tanh": (lambda x: O.Tanh(x), ()),
    "Sigmoid": (lambda x: O.Sigmoid(x), ()),
    "Softsign": (lambda x: O.Softsign(x), ()),
    "Softplus": (lambda x: O.Softplus(x), ()),
    "LeakyRelu": (lambda x, alpha: O.LeakyRelu(x, alpha=alpha), (0.01,)),
    "ThresholdedRelu": (lambda x, alpha: O.ThresholdedRelu(x, alpha=alpha), (1.0,)),
    "Elu": (lambda x, alpha: O.Elu(x, alpha=alpha), (1.0,)),
    "Affine": (lambda x, alpha, beta: x * alpha + beta, (1.0, 0.0)),
    "ScaledTanh": (lambda x, alpha, beta: O.Tanh(x * beta) * alpha, (1.0, 1.0)),
    "HardSigmoid": (lambda x, alpha, beta: O.HardSigmoid(x, alpha=alpha, beta=beta), (0.2, 0.5)),
}
CANONICAL = {name.lower(): name for name in FORMULAS}


def gates_of(
    names: Sequence[str] | None,
    default: Sequence[str],
    directions: int,
    *,
    alpha: Sequence[float],
    beta: Sequence[float],
    clip: float | None,
) -> list[list[Gate]]:
    """Returns the functions of each direction, which limit what they are given to [-clip, clip] first.

    Without names they are the default ones. `alpha` and `beta` are consumed in order by the functions that have such a
    parameter; once they run out it is the operator's own default. Raises InvalidAttribute for an unknown name, a wrong
    number of names, values left over, or a clip that is not positive.
    """
    count = len(default)
    names = [*default] * directions if names is None else names
    if len(names) != count * directions:
        raise InvalidAttribute(f"activations has {len(names)} names; give {count} for each of {directions} directions")
    if clip is not None and clip <= 0:
        raise InvalidAttribute(f"clip is {clip}; it must be positive")
    queues = iter(alpha), iter(beta)
    gates = [_gate(name, queues, clip) for name in names]
    for what, queue in zip(("activation_alpha", "activation_beta"), queues, strict=True):
        if left := list(queue):
            raise InvalidAttribute(f"{what} has {len(left)} values more than the activations {list(names)} take")
    return [gates[index * count : (index + 1) * count] for index in range(directions)]


def _gate(name: str, queues: tuple[Iterator[float], Iterator[float]], clip: float | None) -> Gate:
    if name.lower() not in CANONICAL:
        raise InvalidAttribute(f"there is no activation {name!r}; use one of {', '.join(FORMULAS)}")
    formula, defaults = FORMULAS[CANONICAL[name.lower()]]
    parameters = [float(next(queue, fallback)) for queue, fallback in zip(queues, defaults, strict=False)]

    def gate(x: Value) -> Value:
        return formula(x if clip is None else O.Clip(x, -clip, clip), *parameters)

    return gate
