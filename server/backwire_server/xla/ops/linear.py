"""Linear algebra."""

import jax.numpy as jnp
from jax import Array

from backwire_server.engine.narrow import is_narrow
from backwire_server.xla.registry import kernel


@kernel("MatMul")
def matmul(a: Array, b: Array) -> Array:
    """The matrix product of the last two axes, batched over the others; numbers of two bytes are added in float32"""
    sums = jnp.float32 if is_narrow(a.dtype) else None
    return jnp.matmul(a, b, preferred_element_type=sums).astype(a.dtype)
