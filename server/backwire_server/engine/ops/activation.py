"""Activation functions, element by element."""

import math

import numpy as np

from backwire_server.engine.erf import erf
from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import F, case, function, gradient, op
from backwire_server.engine.shapes import same
from backwire_server.engine.values import O, Value

SAMPLES = [case(F(2, 3, low=0.1)), case(F(4, high=-0.1)), case(F(high=-0.1))]


@op("Relu", shape=same("fi"), samples=SAMPLES)
def relu(x: Array) -> Array:
    """max(x, 0); at 0 the gradient is 0."""
    return np.maximum(x, 0)


@gradient("Relu")
def _(g: Value, y: Value, x: Value) -> Value:
    return O.Where(y > 0.0, g, 0.0)


@op("LeakyRelu", shape=same("f"), samples=[*SAMPLES, case(F(5, high=-0.1), alpha=0.3)])
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """x where x >= 0, alpha x elsewhere"""
    return np.where(x >= 0, x, x * alpha)


@gradient("LeakyRelu")
def _(g: Value, y: Value, x: Value, *, alpha: float) -> Value:
    return O.Where(x >= 0.0, g, g * alpha)


@op("Elu", shape=same("f"), samples=[*SAMPLES, case(F(5, high=-0.1), alpha=0.5)])
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x >= 0, alpha (e^x - 1) elsewhere (Clevert et al. 2016)"""
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)) * alpha)


@gradient("Elu")
def _(g: Value, y: Value, x: Value, *, alpha: float) -> Value:
    return O.Where(x >= 0.0, g, g * (O.Exp(O.Min(x, x.like(0.0))) * alpha))


@op("Sigmoid", shape=same("f"), samples=SAMPLES)
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), computed as (1 + tanh(x / 2)) / 2, which cannot overflow"""
    return np.tanh(x * 0.5) * 0.5 + 0.5


@gradient("Sigmoid")
def _(g: Value, y: Value, x: Value) -> Value:
    return g * (y * (1.0 - y))


@op("Tanh", shape=same("f"), samples=SAMPLES)
def tanh(x: Array) -> Array:
    """The hyperbolic tangent of x"""
    return np.tanh(x)


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


@op("Erf", shape=same("f"), samples=SAMPLES)
def error_function(x: Array) -> Array:
    """The error function: 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x"""
    return erf(x)


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
