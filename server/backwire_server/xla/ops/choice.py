"""Choosing between elements by a condition."""

import jax.numpy as jnp
from jax import Array

from backwire_server.xla.registry import kernel

kernel("Where")(jnp.where)


@kernel("Masked")
def masked(x: Array, condition: Array) -> Array:
    """x where the condition holds, 0 elsewhere"""
    return jnp.where(condition, x, 0)
