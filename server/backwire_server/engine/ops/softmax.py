"""Softmax and its logarithm."""

import numpy as np

from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import F, case, gradient, op
from backwire_server.engine.shapes import axis_of, require
from backwire_server.engine.values import O, Value

SAMPLES = [case(F(2, 3)), case(F(2, 3, 4), axis=1), case(F(3, 2), axis=0)]


def _softmax_type(x: Value, *, axis: int = -1) -> TensorType:
    require(x, "f")
    axis_of(axis, x.rank)
    return x.type


@op("Softmax", shape=_softmax_type, samples=SAMPLES)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """e^x divided by its sum along the axis, computed without overflow"""
    powers = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return np.asarray(powers / np.sum(powers, axis=axis, keepdims=True))


@gradient("Softmax")
def _(g: Value, y: Value, x: Value, *, axis: int) -> Value:
    return y * (g - O.ReduceSum(g * y, [axis], keepdims=1))


@op("LogSoftmax", shape=_softmax_type, samples=SAMPLES)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """The logarithm of Softmax, computed without overflow or cancellation"""
    shifted = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True)))


@gradient("LogSoftmax")
def _(g: Value, y: Value, x: Value, *, axis: int) -> Value:
    return g - O.Exp(y) * O.ReduceSum(g, [axis], keepdims=1)
