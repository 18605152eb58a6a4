"""Operators that pick elements by indices."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.engine.ops.picking import no_place
from backwire_server.xla.registry import kernel, refuse


def checked_indices(indices: Any, size: int, *, from_end: int = 1) -> Any:
    """Returns the indices counted from the front; one outside [-size, size) is refused, and then taken as inside.

    Unless they may count `from_end`, negative ones are refused, too.
    """
    if isinstance(indices, np.ndarray):
        module: Any = np
        wide = indices.astype(np.int64)
    else:
        module = jnp
        wide = indices.astype(jnp.int64 if indices.dtype.itemsize >= 4 and indices.dtype != jnp.int32 else jnp.int32)
    lowest = -size if from_end else 0
    refuse((wide < lowest) | (wide >= size), indices, partial(no_place, lowest=lowest, size=size))
    return module.clip(module.where(wide < 0, wide + size, wide), 0, max(size - 1, 0))


def along_axis(indices: Any, axis: int, size: int) -> tuple[Any, ...]:
    """Returns the full index of each element that `indices` picks along the axis."""
    grid: list[Any] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = checked_indices(indices, size)
    return tuple(grid)


@kernel("Gather", plain=(1,))
def gather(x: Array, indices: Any, *, axis: int, from_end: int) -> Array:
    """The slices of x at the indices along the axis"""
    places = checked_indices(indices, x.shape[axis], from_end=from_end)
    if not x.shape[axis]:
        at = axis % x.ndim
        return jnp.zeros((*x.shape[:at], *indices.shape, *x.shape[at + 1 :]), x.dtype)
    return jnp.take(x, places, axis, mode="clip")


@kernel("GatherGradient", plain=(1,))
def gather_gradient(g: Array, indices: Any, *, axis: int, size: int) -> Array:
    """Zeros with g added at the indices along the axis, which has that size."""
    shape = (*g.shape[:axis], size, *g.shape[axis + indices.ndim :])
    return jnp.zeros(shape, g.dtype).at[(slice(None),) * axis + (checked_indices(indices, size),)].add(g)


@kernel("GatherElements", plain=(1,))
def gather_elements(x: Array, indices: Any, *, axis: int) -> Array:
    """The elements of x whose place along the axis is given by the indices and whose other places are their own"""
    places = along_axis(indices, axis % x.ndim, x.shape[axis])
    return x.at[places].get(mode="clip") if x.size else jnp.zeros(indices.shape, x.dtype)


@kernel("GatherElementsGradient", plain=(1,))
def gather_elements_gradient(g: Array, indices: Any, *, axis: int, shape: tuple[int, ...]) -> Array:
    """Zeros of the shape with g added where GatherElements takes it from"""
    places = along_axis(indices, axis, shape[axis])
    if indices.shape == (*shape[:axis], 1, *shape[axis + 1 :]):  # compilers make more of a comparison than of a scatter
        counts = np.arange(shape[axis]).reshape([-1 if each == axis else 1 for each in range(len(shape))])
        return jnp.where(places[axis] == counts, g, 0)
    return jnp.zeros(shape, g.dtype).at[places].add(g)
