"""Operators that change shapes, not elements."""

from math import prod

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.engine.dims import concrete
from backwire_server.engine.graph import Array as Known
from backwire_server.engine.ops.shaping import reshaped
from backwire_server.xla.registry import kernel

kernel("Copy")(jnp.positive)


@kernel("Reshape", static=(1,))
def reshape(x: Array, shape: Known, *, allowzero: int) -> Array:
    """x in another shape, in C order; 0 copies a dimension (unless `allowzero`), one -1 takes what is left."""
    return x.reshape(concrete(reshaped(x.shape, shape.tolist(), allowzero)))


@kernel("Flatten")
def flatten(x: Array, *, axis: int) -> Array:
    """x as a matrix: the axes before `axis` become its rows, the others its columns."""
    at = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:at]), prod(x.shape[at:]))


@kernel("Transpose")
def transpose(x: Array, *, perm: tuple[int, ...] | None) -> Array:
    """x with its axes in the order `perm`, reversed by default."""
    return jnp.transpose(x, perm)


@kernel("Squeeze", static=(1,))
def squeeze(x: Array, axes: Known | None = None) -> Array:
    """x without the given axes of size 1, or without all of them."""
    return jnp.squeeze(x, None if axes is None else tuple(axes.ravel().tolist()))


@kernel("Unsqueeze", static=(1,))
def unsqueeze(x: Array, axes: Known) -> Array:
    """x with axes of size 1 at the given places of the result."""
    return jnp.expand_dims(x, tuple(axes.ravel().tolist()))


@kernel("Expand", static=(1,))
def expand(x: Array, shape: Known) -> Array:
    """x broadcast to a common shape with `shape`."""
    return jnp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist())))
