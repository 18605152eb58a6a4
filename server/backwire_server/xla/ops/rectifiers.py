"""Activation functions made of straight pieces."""

import jax.numpy as jnp
from jax import Array

from backwire_server.xla.registry import kernel


@kernel("Shrink")
def shrink(x: Array, *, bias: float, lambd: float) -> Array:
    """x + bias where x < -lambd, x - bias where x > lambd, 0 elsewhere"""
    return jnp.where(x < -lambd, x + bias, jnp.where(x > lambd, x - bias, 0)).astype(x.dtype)
