"""Scatter operators, GatherND and its gradient."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.xla.ops.picking import along_axis, checked_indices
from backwire_server.xla.registry import kernel

UPDATES = {"none": "set", "add": "add", "mul": "multiply", "max": "max", "min": "min"}


def _scattered(x: Array, places: tuple[Any, ...], updates: Array, reduction: str) -> Array:
    return getattr(x.at[places], UPDATES[reduction])(updates) if x.size else x


def _places(shape: tuple[int, ...], indices: Any, batch_dims: int = 0) -> tuple[Any, ...]:
    """Returns the indices as one array per axis that they name, those of the batch axes first."""
    grid = np.indices(indices.shape[:-1], sparse=True)[:batch_dims]
    named = range(indices.shape[-1])
    return (*grid, *(checked_indices(indices[..., each], shape[batch_dims + each]) for each in named))


@kernel("ScatterElements", plain=(1,))
def scatter_elements(x: Array, indices: Any, updates: Array, *, axis: int, reduction: str) -> Array:
    """x with the updates written where GatherElements with these indices would read, or combined with what is there"""
    return _scattered(x, along_axis(indices, axis % x.ndim, x.shape[axis]), updates, reduction)


@kernel("GatherND", plain=(1,))
def gather_nd(x: Array, indices: Any, *, batch_dims: int) -> Array:
    """The elements or slices of x at the indices in the last axis; the first axes of both may be a common batch."""
    places = _places(x.shape, indices, batch_dims)
    if not x.size:
        return jnp.zeros((*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :]), x.dtype)
    return x.at[places].get(mode="clip")


@kernel("GatherNDGradient", plain=(1,))
def gather_nd_gradient(g: Array, indices: Any, *, batch_dims: int, shape: tuple[int, ...]) -> Array:
    """Zeros of the shape with g added where GatherND takes it from"""
    return jnp.zeros(shape, g.dtype).at[_places(shape, indices, batch_dims)].add(g)


@kernel("ScatterND", plain=(1,))
def scatter_nd(x: Array, indices: Any, updates: Array, *, reduction: str) -> Array:
    """x with the updates written where GatherND with these indices would read, or combined with what is there"""
    return _scattered(x, _places(x.shape, indices), updates, reduction)
