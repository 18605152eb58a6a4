"""Arithmetic, element by element, with numpy's broadcasting."""

from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.xla.registry import kernel

UFUNCS: dict[str, Any] = {
    "Add": jnp.add,
    "Sub": jnp.subtract,
    "Mul": jnp.multiply,
    "Exp": jnp.exp,
    "Log": jnp.log,
    "Sqrt": jnp.sqrt,
    "Reciprocal": jnp.reciprocal,
    "Sin": jnp.sin,
    "Cos": jnp.cos,
    "Neg": jnp.negative,
    "Abs": jnp.abs,
    "Sign": jnp.sign,
}

for _name, _function in UFUNCS.items():
    kernel(_name)(_function)


@kernel("Div")
def div(a: Array, b: Array) -> Array:
    """a / b; integers are divided towards zero, and by 0 to 0."""
    if a.dtype.kind in "iu":
        return (jnp.sign(a) * jnp.sign(b) * (jnp.abs(a) // jnp.abs(b))).astype(a.dtype)
    return jnp.divide(a, b)


@kernel("Pow", plain=(1,))
def power(a: Array, b: Any) -> Array:
    """a to the power b, in the type of a; small whole exponents are exact."""
    if isinstance(b, np.ndarray) and b.size == 1 and a.ndim >= b.ndim and (exponent := b.item()) in (1, 2, 0.5):
        return {1: jnp.positive, 2: jnp.square, 0.5: jnp.sqrt}[exponent](a)
    wide = a.dtype if a.dtype == b.dtype else jnp.float64
    return jnp.power(a.astype(wide), b.astype(wide)).astype(a.dtype)


@kernel("Max")
def largest(x: Array, *more: Array) -> Array:
    """The largest of the inputs, not a number where one is."""
    return reduce(jnp.maximum, more, x)


@kernel("Min")
def smallest(x: Array, *more: Array) -> Array:
    """The smallest of the inputs, not a number where one is."""
    return reduce(jnp.minimum, more, x)


@kernel("Clip")
def clip(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """x limited to [low, high]; where low is above high, high"""
    raised = x if low is None else jnp.maximum(x, low)
    return raised if high is None else jnp.minimum(raised, high)
