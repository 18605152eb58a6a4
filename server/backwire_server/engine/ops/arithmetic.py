"""Arithmetic, element by element, with numpy's broadcasting."""

from functools import reduce

import numpy as np

from backwire_server.engine.differentiate import is_float
from backwire_server.engine.dims import broadcast
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.operators import Rule
from backwire_server.engine.registry import elementwise, function, gradient, op, stored
from backwire_server.engine.samples import F, I, Sample, case
from backwire_server.engine.shapes import broadcasting, common_dtype, require, require_rank, same
from backwire_server.engine.values import O, Value

PAIRS = [case(F(2, 3), F(2, 3)), case(F(2, 3), F(3)), case(F(4, 1), F(2, 1, 3)), case(F(), F(2, 2))]
POSITIVE_PAIRS = [case(F(2, 3, low=0.5), F(3, low=0.5)), case(F(2, 1, low=0.5), F(3, low=0.5))]


def unary(name: str, ufunc: Rule, rule: Rule | None, doc: str, *, low: float = -2.0, high: float = 2.0) -> None:
    """Adds an operator of one floating-point input; samples lie between `low` and `high`."""
    samples: list[Sample] = [case(F(2, 3, low=low, high=high)), case(F(low=low, high=high))]
    elementwise(name, ufunc, arity=1, shape=same("f"), doc=doc, samples=samples, gradient=rule)


def binary(name: str, ufunc: Rule, rule: Rule, doc: str, samples: list[Sample] = PAIRS) -> None:
    """Adds an operator of two numeric inputs that broadcast against each other."""
    elementwise(name, ufunc, arity=2, shape=broadcasting("fi"), doc=doc, samples=samples, gradient=rule)


binary("Add", np.add, lambda g, y, a, b: (g, g), "a + b")
binary("Sub", np.subtract, lambda g, y, a, b: (g, -g), "a - b")
binary("Mul", np.multiply, lambda g, y, a, b: (g * b, g * a), "a * b")

unary("Exp", np.exp, lambda g, y, x: g * y, "e to the power x")
unary("Log", np.log, lambda g, y, x: g / x, "the natural logarithm of x", low=0.2)
unary("Sqrt", np.sqrt, lambda g, y, x: g * 0.5 / y, "the square root of x", low=0.2)
unary("Reciprocal", np.reciprocal, lambda g, y, x: -g * y * y, "1 / x", low=0.3)
unary("Sin", np.sin, lambda g, y, x: g * O.Cos(x), "the sine of x in radians")
unary("Cos", np.cos, lambda g, y, x: -g * O.Sin(x), "the cosine of x in radians")


@op("Div", shape=broadcasting("fi"), samples=POSITIVE_PAIRS, elementwise=True)
def div(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """a / b; integers are divided towards zero."""
    if a.dtype.kind in "iu":
        return stored((np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype), out)
    return np.divide(a, b, out=out)


@gradient("Div")
def _(g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    return g / b, -g * y / b


@op("Neg", shape=same("fi"), samples=[case(F(2, 3))], elementwise=True)
def neg(x: Array, *, out: Array | None = None) -> Array:
    """-x"""
    return np.negative(x, out=out)


@gradient("Neg")
def _(g: Value, y: Value, x: Value) -> Value:
    return -g


@op("Abs", shape=same("fi"), samples=[case(F(2, 3, low=0.2)), case(F(3, high=-0.2))], elementwise=True)
def absolute(x: Array, *, out: Array | None = None) -> Array:
    """|x|; at 0 the gradient is 0."""
    return np.abs(x, out=out)


@gradient("Abs")
def _(g: Value, y: Value, x: Value) -> Value:
    return g * O.Sign(x)


@op("Sign", shape=same("fi"), samples=[case(F(2, 3))], elementwise=True)
def sign(x: Array, *, out: Array | None = None) -> Array:
    """-1, 0 or 1; its gradient is zero."""
    return np.sign(x, out=out)


@gradient("Sign")
def _(g: Value, y: Value, x: Value) -> None:
    return None


def _power_type(a: Value, b: Value) -> TensorType:
    require(b, "fi")
    return TensorType(require(a, "fi"), broadcast(a.shape, b.shape))


@op(
    "Pow",
    shape=_power_type,
    samples=[*POSITIVE_PAIRS, case(F(3), np.array(2.0)), case(F(3, low=0.3), I(3))],
    elementwise=True,
)
def power(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """a to the power b, in the type of a; the exponent may have a type of its own. Small whole exponents are exact."""
    if b.size == 1 and a.ndim >= b.ndim:
        exponent = b.item()
        if exponent in (1, 2, 0.5):
            return {1: np.positive, 2: np.square, 0.5: np.sqrt}[exponent](a, out=out)
    return stored(np.power(a, b).astype(a.dtype, copy=False), out)


@gradient("Pow")
def _(g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value | None]:
    exponent = b if b.dtype == a.dtype else O.Cast(b, to=a.dtype.name)
    slope = exponent * a ** (exponent - 1.0)
    by_base = g * O.Where(O.Equal(exponent, 0.0), 0.0, slope)  # also at a = 0, where the power is infinite
    if not is_float(b.dtype):
        return by_base, None
    return by_base, O.Cast(g * y * O.Log(O.Where(a > 0.0, a, 1.0)), to=b.dtype.name)


def _extremum(name: str, ufunc: Rule, doc: str) -> None:
    """Adds Max or Min of any number of inputs; where inputs tie, they share the gradient equally."""

    def kernel(x: Array, *more: Array, out: Array | None = None) -> Array:
        if len(more) == 1:
            return np.asarray(ufunc(x, more[0], out=out))
        return stored(reduce(ufunc, more, x), out)

    def rule(g: Value, y: Value, *inputs: Value) -> tuple[Value, ...]:
        masks = [O.Cast(O.Equal(each, y), to=y.dtype.name) for each in inputs]
        ties = reduce(Value.__add__, masks)
        return tuple(g * mask / ties for mask in masks)

    kernel.__doc__ = doc
    samples = [case(F(2, 3), F(3)), case(F(2), F(2), F(2)), case(F(2, 2))]
    op(name, shape=broadcasting("fi"), samples=samples, elementwise=True)(kernel)
    gradient(name)(rule)


_extremum("Max", np.maximum, "The largest of the inputs, element by element; inputs that tie share the gradient.")
_extremum("Min", np.minimum, "The smallest of the inputs, element by element; inputs that tie share the gradient.")


def _clip_type(x: Value, low: Value | None = None, high: Value | None = None) -> TensorType:
    common_dtype([each for each in (x, low, high) if each is not None], "fi")
    for bound in (low, high):
        if bound is not None:
            require_rank(bound, 0, 0)
    return x.type


@op(
    "Clip",
    shape=_clip_type,
    samples=[case(F(3, 4), np.array(-1.0), np.array(1.1)), case(F(4), None, np.array(0.3))],
    elementwise=True,
)
def clip(x: Array, low: Array | None = None, high: Array | None = None, *, out: Array | None = None) -> Array:
    """x limited to [low, high], each bound a scalar or absent; the gradient goes to x or to the bound it hit."""
    if out is not None and high is not None and np.may_share_memory(out, high):
        high = high.copy()
    raised = np.positive(x, out=out) if low is None else np.maximum(x, low, out=out)
    return raised if high is None else np.minimum(raised, high, out=out)


@gradient("Clip")
def _(g: Value, y: Value, x: Value, low: Value | None = None, high: Value | None = None) -> tuple[Value | None, ...]:
    by_low = by_high = None
    raised = x
    if high is not None:
        raised = x if low is None else O.Max(x, low)
        by_high = O.Where(raised > high, g, 0.0)
        g = O.Where(raised <= high, g, 0.0)
    if low is not None:
        by_low = O.Where(x < low, g, 0.0)
        g = O.Where(x >= low, g, 0.0)
    return g, by_low, by_high


@function("Sum", samples=[case(F(2, 3), F(3), F(2, 1)), case(F(3))])
def add_all(*terms: Value) -> Value:
    """The sum of any number of inputs, with broadcasting."""
    return reduce(Value.__add__, terms)


@function("Mean", samples=[case(F(2, 3), F(3), F(2, 1)), case(F(3))])
def mean_all(*terms: Value) -> Value:
    """The mean of any number of inputs, with broadcasting."""
    return reduce(Value.__add__, terms) / float(len(terms))
