"""Rounding, remainders, and the tests for what is not a finite number."""

import jax.numpy as jnp
from jax import Array

from backwire_server.xla.registry import kernel

kernel("Floor")(jnp.floor)
kernel("Ceil")(jnp.ceil)
kernel("Round")(jnp.rint)
kernel("IsNaN")(jnp.isnan)


@kernel("Mod")
def mod(a: Array, b: Array, *, fmod: int) -> Array:
    """The remainder of a / b, with the sign of b, or with that of a when `fmod` is set; of integers by 0 it is 0."""
    found = jnp.fmod(a, b) if fmod else jnp.mod(a, b)
    return jnp.where(b == 0, 0, found) if a.dtype.kind in "iu" else found


@kernel("IsInf")
def is_inf(x: Array, *, detect_negative: int, detect_positive: int) -> Array:
    """Whether x is infinite, as bool; either sign can be left out."""
    return (x == jnp.inf) & bool(detect_positive) | (x == -jnp.inf) & bool(detect_negative)
