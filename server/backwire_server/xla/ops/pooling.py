"""Pooling over windows of the spatial axes of [N, C, d1, ...]."""

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.engine.graph import Array as Known
from backwire_server.engine.ops.reduction import bounds
from backwire_server.engine.windows import Window
from backwire_server.xla.registry import kernel as kernel_of_op

Ints = tuple[int, ...]
MOST_UNROLLED = 16  # places in a window that are compared one by one; what is compiled grows with them


@kernel_of_op("MaxPooling")
def max_pooling(x: Array, **geometry: Ints) -> Array:
    """The largest element of each window"""
    return lax.reduce_window(x, np.asarray(bounds(x.dtype)[0], x.dtype), lax.max, *_windows(Window(**geometry)))


@kernel_of_op("MaxPoolingGradient")
def max_pooling_gradient(g: Array, x: Array, y: Array, **geometry: Ints) -> Array:
    """The gradient of MaxPooling: g where each window's largest element is"""
    window = Window(**geometry)
    winners, spread = _winners(x, y, window), _padded(jnp.zeros_like(x), window, 0)
    flat = spread.reshape(*x.shape[:2], -1).at[_places(winners, spread.shape, window)].add(g)
    inside = zip(window.pads, x.shape[2:], strict=False)
    return flat.reshape(spread.shape)[(..., *(slice(before, before + size) for before, size in inside))]


@kernel_of_op("MaxPoolingSelect")
def max_pooling_select(g: Array, x: Array, y: Array, **geometry: Ints) -> Array:
    """The element of g where each window of x has its largest"""
    window = Window(**geometry)
    padded = _padded(g, window, 0)
    return padded.reshape(*g.shape[:2], -1)[_places(_winners(x, y, window), padded.shape, window)]


@kernel_of_op("MaxPoolingIndices")
def max_pooling_indices(x: Array, *, column_major: int, **geometry: Ints) -> Array:
    """The index in x of each window's largest element"""
    window, sizes = Window(**geometry), x.shape[2:]
    winners = _winners(x, max_pooling(x, **geometry), window)
    grid = np.indices(winners.shape, sparse=True)
    within = np.array(np.unravel_index(np.arange(prod(window.kernel)), window.kernel))
    spatial = [
        jnp.clip(grid[axis + 2] * step + jnp.asarray(within[axis] * gap)[winners] - before, 0, size - 1)
        for axis, (step, gap, before, size) in enumerate(
            zip(window.strides, window.dilations, window.pads, sizes, strict=False)
        )
    ]
    steps = _steps(sizes[::-1])[::-1] if column_major else _steps(sizes)
    flat = sum(place * step for place, step in zip(spatial, steps, strict=True))
    return (grid[0] * x.shape[1] + grid[1]) * prod(sizes) + flat


@kernel_of_op("SumPooling")
def sum_pooling(x: Array, **geometry: Ints) -> Array:
    """The sum of each window"""
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *_windows(Window(**geometry)))


@kernel_of_op("SumPoolingGradient")
def sum_pooling_gradient(g: Array, *, sizes: Ints, **geometry: Ints) -> Array:
    """The gradient of SumPooling: each element of g added to all of its window"""
    x = jax.ShapeDtypeStruct((*g.shape[:2], *sizes), g.dtype)
    return jax.linear_transpose(partial(sum_pooling, **geometry), x)(g)[0]


def _around(window: Window) -> list[tuple[int, int]]:
    rank = len(window.kernel)
    return [(0, 0), (0, 0), *((window.pads[axis], window.pads[axis + rank]) for axis in range(rank))]


def _windows(window: Window) -> tuple[Any, ...]:
    """Returns windows as `lax.reduce_window` takes them: sizes, steps, padding, nothing between elements, gaps."""
    return (1, 1, *window.kernel), (1, 1, *window.strides), _around(window), None, (1, 1, *window.dilations)


def _padded(x: Array, window: Window, value: Any) -> Array:
    return jnp.pad(x, _around(window), constant_values=np.asarray(value, x.dtype))


def _steps(sizes: Ints) -> list[int]:
    """Returns how far apart neighbours along each axis lie in C order."""
    return [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _flat(window: Window, padded: Ints, outputs: Ints) -> tuple[Known, Known]:
    """Returns where in a padded plane, in C order, each window begins, and how far its places are from there."""
    steps = np.array(_steps(padded))
    begin = np.tensordot(steps * window.strides, np.indices(outputs), 1)
    return begin, np.tensordot(steps * window.dilations, np.indices(window.kernel), 1).reshape(-1)


def _places(winners: Array, padded: Ints, window: Window) -> tuple[Any, ...]:
    """Returns the index into [N, C, places of a padded plane] of the winners."""
    begin, offsets = _flat(window, padded[2:], winners.shape[2:])
    batch, channel, *_ = np.indices(winners.shape, sparse=True)
    return batch, channel, begin + jnp.asarray(offsets)[winners]


def _winners(x: Array, y: Array, window: Window) -> Array:
    """Returns, for each window, the place in the kernel, in C order, of the first element that is not less than y."""
    padded, count = _padded(x, window, bounds(x.dtype)[0]), prod(window.kernel)
    start = jnp.zeros(y.shape, jnp.bool_), jnp.zeros(y.shape, jnp.int64)

    def compare(place: Any, part: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        found, winner = state
        hit = ~(found | (part < y))
        return found | hit, jnp.where(hit, place, winner)

    if count <= MOST_UNROLLED:
        for place, (_, slices) in enumerate(window.offsets(y.shape[2:])):
            start = compare(place, padded[(..., *slices)], start)
        return start[1]
    begin, offsets = _flat(window, padded.shape[2:], y.shape[2:])
    planes, distance = padded.reshape(*x.shape[:2], -1), jnp.asarray(offsets)
    return lax.fori_loop(0, count, lambda k, state: compare(k, planes[:, :, begin + distance[k]], state), start)[1]
