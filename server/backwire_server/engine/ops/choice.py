"""Choosing between elements by a condition, on their bits: a branch for each element would be mispredicted."""

from functools import partial
from typing import Any

import numpy as np

from backwire_server.engine.dims import broadcast
from backwire_server.engine.geometry import room_like
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import Call, Take, gradient, op, prepared
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import common_dtype, require
from backwire_server.engine.values import O, Value


def _where_type(condition: Value, a: Value, b: Value) -> TensorType:
    require(condition, "b")
    return TensorType(common_dtype([a, b]), broadcast(condition.shape, a.shape, b.shape))


@op(
    "Where",
    shape=_where_type,
    samples=[case(I(0, 1, 1) > 0, F(2, 3), F(3)), case(I([1], [0]) > 0, F(), F(2, 3))],
    elementwise=True,
)
def where(condition: Array, a: Array, b: Array, *, out: Array | None = None) -> Array:
    """a where the condition holds, b elsewhere."""
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    result = np.empty(shape, a.dtype) if out is None else out
    for call in _select(result, condition, a, b, _mask_like(condition, a)):
        call()
    return result


@prepared("Where")
def _(out: Array, condition: Array, a: Array, b: Array, *, take: Take) -> list[Call]:
    return _select(out, condition, a, b, room_like(condition, bits_of(a), take))


@gradient("Where")
def _(g: Value, y: Value, condition: Value, a: Value, b: Value) -> tuple[None, Value, Value]:
    return None, O.Masked(g, condition), O.Masked(g, O.Not(condition))


def _masked_type(x: Value, condition: Value) -> TensorType:
    return TensorType(x.dtype, broadcast(x.shape, condition.shape))


@op(
    "Masked",
    shape=_masked_type,
    samples=[case(F(2, 3), I(0, 1, 1) > 0), case(F(3), I([1], [0]) > 0)],
    internal=True,
    elementwise=True,
)
def masked(x: Array, condition: Array, *, out: Array | None = None) -> Array:
    """x where the condition holds, 0 elsewhere: Where with zeros."""
    result = np.empty(np.broadcast_shapes(x.shape, condition.shape), x.dtype) if out is None else out
    for call in _keep(result, x, condition, _mask_like(condition, x)):
        call()
    return result


@prepared("Masked")
def _(out: Array, x: Array, condition: Array, *, take: Take) -> list[Call]:
    return _keep(out, x, condition, room_like(condition, bits_of(x), take))


@gradient("Masked")
def _(g: Value, y: Value, x: Value, condition: Value) -> tuple[Value, None]:
    return O.Masked(g, condition), None


def bits_of(x: Array) -> np.dtype[Any]:
    """Returns the integer type that holds the bits of an element."""
    return np.dtype(f"i{x.dtype.itemsize}")


def _mask_like(condition: Array, x: Array) -> Array:
    return np.empty(condition.shape, bits_of(x))


def _widened(mask: Array, condition: Array) -> Call:
    """Returns the call that makes the mask: all bits where the condition holds, none elsewhere."""
    return partial(np.negative, condition.view(np.int8), out=mask, dtype=mask.dtype, casting="unsafe")


def _keep(out: Array, x: Array, condition: Array, mask: Array) -> list[Call]:
    bits, found = x.view(mask.dtype), out.view(mask.dtype)
    return [_widened(mask, condition), partial(np.bitwise_and, bits, mask, out=found)]


def _select(out: Array, condition: Array, a: Array, b: Array, mask: Array) -> list[Call]:
    """Returns calls for `b ^ ((a ^ b) & mask)`; where the result replaces b, with a and b exchanged."""
    if a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.shape == b.shape:
        return [partial(np.copyto, out, a)]
    first, second, found = (each.view(mask.dtype) for each in (a, b, out))
    calls = [_widened(mask, condition)]
    if np.may_share_memory(out, b):
        first, second = second, first
        calls.append(partial(np.invert, mask, out=mask))
    differ = partial(np.bitwise_xor, first, second, out=found)
    return [
        *calls,
        differ,
        partial(np.bitwise_and, found, mask, out=found),
        partial(np.bitwise_xor, found, second, out=found),
    ]
