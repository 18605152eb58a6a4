"""Activation functions, element by element."""

import math

import numpy as np

from backwire_server.engine.erf import erf
from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import function, gradient, op, stored
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import axis_of, require_equal, require_rank, same
from backwire_server.engine.values import O, Value

SAMPLES = [case(F(2, 3, low=0.1)), case(F(4, high=-0.1)), case(F(high=-0.1))]


@op("Relu", shape=same("fi"), samples=SAMPLES, elementwise=True)
def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0); at 0 the gradient is 0."""
    return np.maximum(x, 0, out=out)


@gradient("Relu")
def _(g: Value, y: Value, x: Value) -> Value:
    return O.Where(y > 0.0, g, 0.0)


@op("LeakyRelu", shape=same("f"), samples=[*SAMPLES, case(F(5, high=-0.1), alpha=0.3)])
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """x where x >= 0, alpha x elsewhere; at 0 the gradient is alpha."""
    return np.where(x >= 0, x, x * x.dtype.type(alpha))


@gradient("LeakyRelu")
def _(g: Value, y: Value, x: Value, *, alpha: float) -> Value:
    return O.Where(x > 0.0, g, g * alpha)


@op("Elu", shape=same("f"), samples=[*SAMPLES, case(F(5, high=-0.1), alpha=0.5)])
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x >= 0, alpha (e^x - 1) elsewhere (Clevert et al. 2016); at 0 the gradient is alpha."""
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)) * x.dtype.type(alpha))


@gradient("Elu")
def _(g: Value, y: Value, x: Value, *, alpha: float) -> Value:
    return O.Where(x > 0.0, g, g * (O.Exp(O.Min(x, x.like(0.0))) * alpha))


@op("Sigmoid", shape=same("f"), samples=SAMPLES, elementwise=True)
def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + e^-x), to the rounding of the dtype in both tails; half precision goes through float32"""
    if x.dtype.itemsize < 4:
        return stored(sigmoid(x.astype(np.float32)).astype(x.dtype), out)
    y = np.exp(np.negative(x, out=out), out=out)  # where it overflows to infinity, the result is rightly 0
    return np.reciprocal(np.add(y, 1, out=out), out=out)


@gradient("Sigmoid")
def _(g: Value, y: Value, x: Value) -> Value:
    return g * (y * (1.0 - y))


@op("Tanh", shape=same("f"), samples=SAMPLES, elementwise=True)
def tanh(x: Array, *, out: Array | None = None) -> Array:
    """The hyperbolic tangent of x"""
    return np.tanh(x, out=out)


@gradient("Tanh")
def _(g: Value, y: Value, x: Value) -> Value:
    return g * (1.0 - y * y)


@op("Softplus", shape=same("f"), samples=[*SAMPLES, case(F(3, low=30.0, high=90.0))])
def softplus(x: Array) -> Array:
    """log(1 + e^x), computed without overflow"""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@gradient("Softplus")
def _(g: Value, y: Value, x: Value) -> Value:
    return g * O.Sigmoid(x)


@op("Erf", shape=same("f"), samples=SAMPLES, elementwise=True)
def error_function(x: Array, *, out: Array | None = None) -> Array:
    """The error function: 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x"""
    return erf(x, out)


@gradient("Erf")
def _(g: Value, y: Value, x: Value) -> Value:
    return g * (O.Exp(-x * x) * (2.0 / math.sqrt(math.pi)))


@function("Gelu", samples=[*SAMPLES, *(case(F(3), approximate="tanh"),)])
def gelu(x: Value, *, approximate: str = "none") -> Value:
    """x times the normal distribution function at x (Hendrycks and Gimpel 2016), or its approximation by tanh"""
    if approximate == "none":
        return x * 0.5 * (O.Erf(x * math.sqrt(0.5)) + 1.0)
    if approximate == "tanh":
        return x * 0.5 * (O.Tanh((x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0)
    raise InvalidAttribute(f"approximate is {approximate!r}; use 'none' or 'tanh'")


@function("Softsign", samples=SAMPLES)
def softsign(x: Value) -> Value:
    """x / (1 + |x|)"""
    return x / (O.Abs(x) + 1.0)


@function("Swish", samples=[*SAMPLES, case(F(2, 3), alpha=1.7)])
def swish(x: Value, *, alpha: float = 1.0) -> Value:
    """x times Sigmoid(alpha x) (Ramachandran et al. 2017)"""
    return x * O.Sigmoid(x if alpha == 1.0 else x * alpha)


@function("Mish", samples=SAMPLES)
def mish(x: Value) -> Value:
    """x times tanh(Softplus(x)) (Misra 2019)"""
    return x * O.Tanh(O.Softplus(x))


@function("Hardmax", samples=[case(F(2, 3)), case(F(2, 3, 4), axis=1), case(F(3, 2), axis=0)])
def hardmax(x: Value, *, axis: int = -1) -> Value:
    """1 at the first largest element along the axis, 0 elsewhere; its gradient is zero."""
    at = axis_of(axis, x.rank)
    places = np.arange(x.builder.make(int(x.shape[at]))).reshape([-1 if place == at else 1 for place in range(x.rank)])
    return O.Cast(O.Equal(O.ArgMax(x, axis=at), places), to=x.dtype.name)


@function("SwiGLU", samples=[case(F(2, 3), F(2, 3)), case(F(4), F(4), alpha=1.7)])
def swiglu(a: Value, b: Value, *, alpha: float = 1.0) -> Value:
    """Swish(a) times b, which have one shape (Shazeer 2020)"""
    require_rank(b, a.rank, a.rank)
    for axis, (size, other) in enumerate(zip(a.shape, b.shape, strict=True)):
        require_equal(size, other, f"sizes of the inputs along axis {axis}")
    return O.Swish(a, alpha=alpha) * b
