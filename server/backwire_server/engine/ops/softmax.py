"""Softmax and its logarithm."""

from functools import partial

import numpy as np

from backwire_server.engine.geometry import order_of, room_like
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.sums import sum_over, summing
from backwire_server.engine.registry import Call, Take, gradient, op, prepared
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import axis_of, require
from backwire_server.engine.values import O, Value

SAMPLES = [case(F(2, 3)), case(F(2, 3, 4), axis=1), case(F(3, 2), axis=0)]


def _softmax_type(x: Value, *, axis: int = -1) -> TensorType:
    require(x, "f")
    axis_of(axis, x.rank)
    return x.type


@op("Softmax", shape=_softmax_type, samples=SAMPLES)
def softmax(x: Array, *, axis: int = -1, out: Array | None = None) -> Array:
    """e^x divided by its sum along the axis, computed without overflow"""
    y = np.subtract(x, np.max(x, axis=axis, keepdims=True, initial=-np.inf), out=out)
    y = np.exp(y, out=y)
    return np.divide(y, sum_over(y, (axis % x.ndim,)), out=y)


@prepared("Softmax", order=lambda x, **_: order_of(x), combines=lambda x, axis: ((axis % x.ndim,), True))
def _(out: Array, x: Array, *, axis: int, take: Take) -> list[Call]:
    calls, row = _shifted(out, x, axis, take)
    return [
        *calls,
        partial(np.exp, out, out=out),
        *summing(row, out, [axis % x.ndim], take),
        partial(np.divide, out, row, out=out),
    ]


def _shifted(out: Array, x: Array, axis: int, take: Take) -> tuple[list[Call], Array]:
    """Returns the calls that subtract from x its maximum along the axis, and an array that has room for one row."""
    order = order_of(x) or tuple(range(x.ndim))
    sizes = [1 if each == axis % x.ndim else x.shape[each] for each in order]
    row = take(sizes, x.dtype).transpose(np.argsort(order))
    largest = partial(np.maximum.reduce, x, axis=axis, out=row, keepdims=True, initial=-np.inf)
    return [largest, partial(np.subtract, x, row, out=out)], row


@gradient("Softmax")
def _(g: Value, y: Value, x: Value, *, axis: int) -> Value:
    return y * (g - O.ReduceSum(g * y, [axis], keepdims=1))


@op("LogSoftmax", shape=_softmax_type, samples=SAMPLES)
def log_softmax(x: Array, *, axis: int = -1, out: Array | None = None) -> Array:
    """The logarithm of Softmax, computed without overflow or cancellation"""
    y = np.subtract(x, np.max(x, axis=axis, keepdims=True, initial=-np.inf), out=out)
    return np.subtract(y, np.log(sum_over(np.exp(y), (axis % x.ndim,))), out=y)


@prepared("LogSoftmax", order=lambda x, **_: order_of(x), combines=lambda x, axis: ((axis % x.ndim,), True))
def _(out: Array, x: Array, *, axis: int, take: Take) -> list[Call]:
    calls, row = _shifted(out, x, axis, take)
    powers = room_like(out, out.dtype, take)
    return [
        *calls,
        partial(np.exp, out, out=powers),
        *summing(row, powers, [axis % x.ndim], take),
        partial(np.log, row, out=row),
        partial(np.subtract, out, row, out=out),
    ]


@gradient("LogSoftmax")
def _(g: Value, y: Value, x: Value, *, axis: int) -> Value:
    return g - O.Exp(y) * O.ReduceSum(g, [axis], keepdims=1)
