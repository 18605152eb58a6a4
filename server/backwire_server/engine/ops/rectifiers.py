"""Activation functions made of straight pieces, and those of the exponential-linear family."""

import numpy as np

from backwire_server.engine.dims import broadcast
from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import function, gradient, op
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import same
from backwire_server.engine.values import O, Value

SAMPLES = [case(F(2, 3, low=0.1)), case(F(4, high=-0.1)), case(F(high=-0.1))]


@function("Selu", samples=[*SAMPLES, case(F(3, high=-0.1), alpha=1.5, gamma=2.0)])
def selu(x: Value, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Value:
    """gamma x where x > 0, gamma alpha (e^x - 1) elsewhere (Klambauer et al. 2017)"""
    return O.Elu(x, alpha=alpha) * gamma


@function("Celu", samples=[*SAMPLES, case(F(3, high=-0.1), alpha=1.5)])
def celu(x: Value, *, alpha: float = 1.0) -> Value:
    """x where x >= 0, alpha (e^(x / alpha) - 1) elsewhere (Barron 2017)"""
    return O.Elu(x / alpha) * alpha


@function("HardSigmoid", samples=[case(F(2, 3)), case(F(3, low=0.3), alpha=0.5, beta=0.4)])
def hard_sigmoid(x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    """alpha x + beta limited to [0, 1]"""
    return O.Clip(x * alpha + beta, 0.0, 1.0)


@function("HardSwish", samples=[case(F(2, 3)), case(F(3, low=3.2, high=5.0)), case(F(3, low=-5.0, high=-3.2))])
def hard_swish(x: Value) -> Value:
    """x times HardSigmoid(x) with alpha 1/6 and beta 0.5 (Howard et al. 2019)"""
    return x * O.HardSigmoid(x, alpha=1.0 / 6.0, beta=0.5)


@function("PRelu", samples=[case(F(2, 3, low=0.1), F(3)), case(F(2, 3, high=-0.1), F(3)), case(F(2, high=-0.1), F())])
def prelu(x: Value, slope: Value) -> Value:
    """x where x > 0, slope x elsewhere; the slope broadcasts to x (He et al. 2015)."""
    if len(broadcast(x.shape, slope.shape)) > x.rank:
        raise ShapeMismatch(f"the slope has rank {slope.rank} and x {x.rank}; the slope must broadcast to x")
    return O.Where(x > 0, x, slope * x)


@function("ThresholdedRelu", samples=[case(F(2, 3, low=1.1)), case(F(2, 3, high=0.9)), case(F(4, low=0.6), alpha=0.5)])
def thresholded_relu(x: Value, *, alpha: float = 1.0) -> Value:
    """x where x > alpha, 0 elsewhere"""
    return O.Where(x > alpha, x, 0.0)


@op(
    "Shrink",
    shape=same("fi"),
    samples=[case(F(4, low=0.6)), case(F(4, high=-0.6), bias=0.2), case(F(4, low=-0.4, high=0.4))],
)
def shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x + bias where x < -lambd, x - bias where x > lambd, 0 elsewhere"""
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)


@gradient("Shrink")
def _(g: Value, y: Value, x: Value, *, bias: float, lambd: float) -> Value:
    return O.Where(O.Abs(x) > lambd, g, 0.0)
