"""Operators on the bits of integers."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from backwire_server.engine.ops.logic import dtype_named
from backwire_server.xla.registry import kernel

SHIFTS = {"LEFT": jnp.left_shift, "RIGHT": jnp.right_shift}

kernel("BitwiseAnd")(jnp.bitwise_and)
kernel("BitwiseOr")(jnp.bitwise_or)
kernel("BitwiseXor")(jnp.bitwise_xor)
kernel("BitwiseNot")(jnp.bitwise_not)


@kernel("BitShift")
def bit_shift(a: Array, b: Array, *, direction: str) -> Array:
    """a with its bits moved by b places; by less than 0, or by as many as there are, only what comes in is left."""
    beyond = (b < 0) | (b >= 8 * b.dtype.itemsize)
    moved = SHIFTS[direction](a, jnp.where(beyond, 0, b))
    filler = jnp.where((a < 0) & (direction == "RIGHT"), -1, 0).astype(a.dtype)
    return jnp.where(beyond, filler, moved)


@kernel("BitCast")
def bit_cast(x: Array, *, to: Any) -> Array:
    """The bits of x read as another type of the same width"""
    dtype = dtype_named(to)
    bits = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    if dtype == jnp.bool_:
        return lax.bitcast_convert_type(bits, jnp.uint8) != 0
    return lax.bitcast_convert_type(bits, dtype)
