"""Operators whose result depends on which elements are largest or not zero."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.engine.graph import Array as Known
from backwire_server.xla.registry import kernel


@kernel("TopIndices")
def top_indices(x: Array, *, count: int, axis: int, largest: int) -> Array:
    """The indices of the `count` largest elements along the axis, or of the smallest; of equals the first"""
    if largest:
        order = jnp.flip(x.shape[axis] - 1 - jnp.argsort(jnp.flip(x, axis), axis, stable=True), axis)
    else:
        order = jnp.argsort(x, axis, stable=True)
    return lax.slice_in_dim(order, 0, count, axis=axis).astype(jnp.int64)


@kernel("NonZero", static=(0,))
def non_zero(x: Known) -> Array:
    """The indices of the elements that are not zero, one column for each, in C order; the elements must be known."""
    return jnp.asarray(np.argwhere(x).T)
