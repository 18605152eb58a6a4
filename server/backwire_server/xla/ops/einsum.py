"""Sums of products over named axes."""

import jax.numpy as jnp
from jax import Array

from backwire_server.engine.narrow import is_narrow
from backwire_server.xla.registry import kernel


@kernel("Contraction")
def contraction(*inputs: Array, terms: tuple[str, ...], result: str) -> Array:
    """Einsum with a letter for every axis; numbers of two bytes are added in float32"""
    dtype = inputs[0].dtype
    sums = jnp.float32 if is_narrow(dtype) else None
    return jnp.einsum(f"{','.join(terms)}->{result}", *inputs, preferred_element_type=sums).astype(dtype)
