"""Draws calls of elementwise operators: shapes, broadcasting and settings."""

from typing import Any

import numpy as np
from tests.engine.drawing import Draw, Strategy, call

from backwire_server.engine.samples import Sample


def unary(low: float = -2.0, high: float = 2.0, **choices: tuple[Any, ...]) -> Strategy:
    """Returns a strategy of one input between the bounds, and of attributes picked among the choices."""

    def strategy(d: Draw) -> Sample:
        attributes = {name: d.pick(None, *values) for name, values in choices.items()}
        return call(d.floats(*d.shape(), low=low, high=high), **attributes)

    return strategy


def binary(low: float = -2.0, high: float = 2.0, **choices: tuple[Any, ...]) -> Strategy:
    def strategy(d: Draw) -> Sample:
        shape = d.shape()
        pair = [d.floats(*shape, low=low, high=high), d.floats(*d.broadcast_with(shape), low=low, high=high)]
        attributes = {name: d.pick(*values) for name, values in choices.items()}
        return call(*(pair[place] for place in d.order(2)), **attributes)

    return strategy


def several(d: Draw) -> Sample:
    shape = d.shape()
    return call(*(d.floats(*d.within(shape)) for _ in range(d.number(1, 3))))


def div(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.floats(*shape), d.floats(*d.broadcast_with(shape), low=0.3) * d.pick(1.0, -1.0))


def power(d: Draw) -> Sample:
    shape = d.shape()
    base = d.floats(*shape, low=0.3)
    exponent = d.pick(d.floats(*d.broadcast_with(shape)), np.array(2.0), np.array(3), np.array(-1.0))
    return call(base, exponent)


def modulo(d: Draw) -> Sample:
    divisor, whole = d.pick(0.7, 1.5), d.number(0, 2)
    rest = d.floats(*d.shape(), low=0.1, high=0.6)
    return call(rest + whole * divisor, np.array(divisor), fmod=1)


def clip(d: Draw) -> Sample:
    low, high = d.maybe(lambda: np.array(-0.5)), d.maybe(lambda: np.array(0.75))
    return call(d.floats(*d.shape()), low, high)


def where(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.bools(*d.within(shape)), d.floats(*d.within(shape)), d.floats(*d.within(shape)))


def prelu(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.floats(*shape), d.floats(*d.within(shape)))


def swiglu(d: Draw) -> Sample:
    shape = d.shape(1)
    return call(d.floats(*shape), d.floats(*shape), alpha=d.pick(None, 1.7))


def dropout(d: Draw) -> Sample:
    ratio, training = np.array(d.pick(0.0, 0.25, 0.5)), d.maybe(lambda: d.bools())
    return call(d.floats(*d.shape()), ratio, training, static=(1,), outputs=d.number(1, 2))


def cast_like(d: Draw) -> Sample:
    return call(d.floats(*d.shape()), d.floats(1), static=(1,))


def cast(d: Draw) -> Sample:
    return call(d.floats(*d.shape()), to="float64")


ALPHAS = (0.3, 1.5)
STRATEGIES: dict[str, Strategy] = {
    **dict.fromkeys(("Add", "Sub", "Mul"), binary()),
    **dict.fromkeys(("Max", "Min", "Mean", "Sum"), several),
    **dict.fromkeys(("Abs", "Neg", "Exp", "Sin", "Cos", "Sinh", "Cosh", "Tanh", "Atan", "Asinh", "Erf"), unary()),
    **dict.fromkeys(("Relu", "Sigmoid", "Softplus", "Softsign", "Mish", "Identity"), unary()),
    **dict.fromkeys(("Log", "Sqrt", "Reciprocal"), unary(low=0.3)),
    **dict.fromkeys(("Acos", "Asin", "Atanh"), unary(low=-0.9, high=0.9)),
    "Acosh": unary(low=1.2, high=3.0),
    "Tan": unary(low=-1.2, high=1.2),
    "LeakyRelu": unary(alpha=ALPHAS),
    "Elu": unary(alpha=ALPHAS),
    "Celu": unary(alpha=ALPHAS),
    "Selu": unary(alpha=ALPHAS, gamma=(0.5, 2.0)),
    "Swish": unary(alpha=ALPHAS),
    "Gelu": unary(approximate=("none", "tanh")),
    "HardSigmoid": unary(low=-4.0, high=4.0, alpha=(0.25,), beta=(0.25, 0.5)),
    "HardSwish": unary(low=-4.0, high=4.0),
    "ThresholdedRelu": unary(alpha=(0.5, 1.25)),
    "Shrink": unary(bias=(0.2,), lambd=(0.25, 1.0)),
    "Div": div,
    "Pow": power,
    "Mod": modulo,
    "Clip": clip,
    "Where": where,
    "PRelu": prelu,
    "SwiGLU": swiglu,
    "Dropout": dropout,
    "CastLike": cast_like,
    "Cast": cast,
}
