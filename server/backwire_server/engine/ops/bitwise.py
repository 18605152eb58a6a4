"""Operators on the bits of integers. None has a gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np

from backwire_server.engine.dims import broadcast
from backwire_server.engine.errors import DtypeMismatch, InvalidAttribute
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.logic import dtype_named
from backwire_server.engine.registry import elementwise, op
from backwire_server.engine.samples import I, case
from backwire_server.engine.shapes import broadcasting, common_dtype, same
from backwire_server.engine.values import Value


def _bitwise(name: str, ufunc: Callable[..., Array], doc: str) -> None:
    samples = [case(I([12, 5], [-1, 7]), I(10, 3))]
    elementwise(name, ufunc, arity=2, shape=broadcasting("i"), doc=doc, samples=samples, gradient=None)


_bitwise("BitwiseAnd", np.bitwise_and, "The bits that are set in both integers.")
_bitwise("BitwiseOr", np.bitwise_or, "The bits that are set in either integer.")
_bitwise("BitwiseXor", np.bitwise_xor, "The bits that are set in just one of the integers.")


@op("BitwiseNot", shape=same("i"), samples=[case(I(0, 5, -3))])
def bitwise_not(x: Array) -> Array:
    """The integer with all its bits exchanged."""
    return np.bitwise_not(x)


SHIFTS = {"LEFT": np.left_shift, "RIGHT": np.right_shift}


def _shift_type(a: Value, b: Value, *, direction: str) -> TensorType:
    if direction not in SHIFTS:
        raise InvalidAttribute(f"direction is {direction!r}; use LEFT or RIGHT")
    return TensorType(common_dtype([a, b], "i"), broadcast(a.shape, b.shape))


SHIFTED = [(np.array([16, 4, 1], np.uint8), np.array([1, 2, 3], np.uint8)), (I(16, -4, -7), I(1, 2, -1))]


@op("BitShift", shape=_shift_type, samples=[case(*pair, direction=each) for pair in SHIFTED for each in SHIFTS])
def bit_shift(a: Array, b: Array, *, direction: str) -> Array:
    """a with its bits moved by b places, LEFT or RIGHT: what leaves is lost, zeros or copies of the sign come in.

    Shifting by less than 0 places, or by as many as there are, leaves only what comes in.
    """
    beyond = (b < 0) | (b >= 8 * b.itemsize)
    moved = SHIFTS[direction](a, np.where(beyond, 0, b).astype(b.dtype))
    filler = np.where((a < 0) & (direction == "RIGHT"), -1, 0)
    return np.where(beyond, filler, moved).astype(a.dtype)


def _bit_cast_type(x: Value, *, to: Any) -> TensorType:
    dtype = dtype_named(to)
    if dtype.itemsize != x.dtype.itemsize:
        raise DtypeMismatch(f"{x.dtype.name} and {dtype.name} differ in width; choose a type of the same width")
    return TensorType(dtype, x.shape)


@op("BitCast", shape=_bit_cast_type, samples=[case(I(1, -2), to="float64"), case(I(3, 4), to="uint64")])
def bit_cast(x: Array, *, to: Any) -> Array:
    """The bits of x read as another type of the same width; it has no gradient."""
    return np.ascontiguousarray(x).view(dtype_named(to)).reshape(x.shape)
