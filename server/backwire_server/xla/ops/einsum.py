"""Sums of products over named axes."""

import jax.numpy as jnp
from jax import Array

from backwire_server.xla.registry import kernel


@kernel("Contraction")
def contraction(*inputs: Array, terms: tuple[str, ...], result: str) -> Array:
    """Einsum with a letter for every axis"""
    return jnp.einsum(f"{','.join(terms)}->{result}", *inputs).astype(inputs[0].dtype)
