"""Running sums."""

import jax.numpy as jnp
from jax import Array

from backwire_server.engine.graph import Array as Known
from backwire_server.xla.registry import kernel


@kernel("CumSum", static=(1,))
def cumulative_sum(x: Array, axis: Known, *, exclusive: int, reverse: int) -> Array:
    """The running sum along the axis, without the element itself if `exclusive`, from the end if `reverse`."""
    at = axis.item() % x.ndim
    ordered = jnp.flip(x, at) if reverse else x
    total = jnp.cumsum(ordered, at, x.dtype)
    if exclusive:
        first = jnp.arange(x.shape[at]).reshape([-1 if each == at else 1 for each in range(x.ndim)]) == 0
        total = jnp.where(first, 0, jnp.roll(total, 1, at))
    return jnp.flip(total, at) if reverse else total
