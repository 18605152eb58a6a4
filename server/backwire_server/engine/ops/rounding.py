"""Rounding, remainders, and the tests for what is not a finite number."""

import numpy as np

from backwire_server.engine.dims import broadcast
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.arithmetic import unary
from backwire_server.engine.registry import gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import common_dtype, require
from backwire_server.engine.values import Value

unary("Floor", np.floor, lambda g, y, x: None, "the largest whole number not above x; its gradient is zero")
unary("Ceil", np.ceil, lambda g, y, x: None, "the smallest whole number not below x; its gradient is zero")
unary("Round", np.rint, lambda g, y, x: None, "the nearest whole number, halves to even; its gradient is zero")


def _mod_type(a: Value, b: Value, *, fmod: int = 0) -> TensorType:
    return TensorType(common_dtype([a, b], "fi"), broadcast(a.shape, b.shape))


@op(
    "Mod",
    shape=_mod_type,
    samples=[
        case(np.array([[4.3, -4.1], [7.5, 3.2]]), np.array([2.0, -3.0]), fmod=1),
        case(np.array([4.3, -4.1, -0.7]), np.array([2.0, 1.5, 3.0])),
        case(I(7, -7, 7), I(3, 3, -3)),
    ],
)
def mod(a: Array, b: Array, *, fmod: int = 0) -> Array:
    """The remainder of a / b, with the sign of b, or with that of a when `fmod` is set."""
    return np.fmod(a, b) if fmod else np.mod(a, b)


@gradient("Mod")
def _(g: Value, y: Value, a: Value, b: Value, *, fmod: int) -> tuple[Value, Value]:
    return g, -g * (a - y) / b


def _test_type(x: Value, **_: int) -> TensorType:
    require(x, "f")
    return TensorType.of(np.bool_, x.shape)


@op("IsNaN", shape=_test_type, samples=[case(F(2, 3)), case(np.array([np.nan, 1.0, np.inf]))])
def is_nan(x: Array) -> Array:
    """Whether x is not a number, as bool"""
    return np.isnan(x)


@op(
    "IsInf",
    shape=_test_type,
    samples=[case(np.array([np.inf, -np.inf, 1.0])), case(np.array([np.inf, -np.inf]), detect_negative=0)],
)
def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Whether x is infinite, as bool; either sign can be left out."""
    return np.isinf(x) & (bool(detect_positive) & (x > 0) | bool(detect_negative) & (x < 0))
