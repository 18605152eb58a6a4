"""Operators that cut and join."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.engine.graph import Array as Known
from backwire_server.engine.ops.indexing import slices_of, split_sizes
from backwire_server.xla.registry import kernel


@kernel("Concat")
def concat(first: Array, *more: Array, axis: int) -> Array:
    """The inputs joined along the axis."""
    return jnp.concatenate((first, *more), axis)


@kernel("Split", static=(1,))
def split(
    x: Array, split: Known | None = None, *, axis: int, num_outputs: int | None, n_outputs: int
) -> tuple[Array, ...]:
    """x cut along the axis into parts of the given sizes, or of equal ones, of which the last may be smaller."""
    sizes = split.tolist() if split is not None else split_sizes(x.shape[axis], num_outputs or n_outputs)
    return tuple(jnp.split(x, np.cumsum(sizes)[:-1], axis))


@kernel("Slice", static=(1, 2, 3, 4))
def slice_(x: Array, *bounds: Known | None) -> Array:
    """x cut to [starts, ends) in steps along the axes, as Python slices do."""
    return x[_slices(x.shape, bounds)]


@kernel("SliceGradient", static=(1, 2, 3, 4))
def slice_gradient(g: Array, *bounds: Known | None, shape: tuple[int, ...]) -> Array:
    """Zeros of the shape, with g where Slice with these bounds would take it from."""
    spans = [range(*each.indices(size)) for each, size in zip(_slices(shape, bounds), shape, strict=True)]
    backwards = [axis for axis, span in enumerate(spans) if span.step < 0]
    around = [_around(span[::-1] if span.step < 0 else span, size) for span, size in zip(spans, shape, strict=True)]
    return lax.pad(lax.rev(g, backwards), jnp.zeros((), g.dtype), around)


def _slices(shape: tuple[int, ...], bounds: tuple[Known | None, ...]) -> tuple[slice, ...]:
    """Returns the Python slices that starts, ends, axes and steps mean."""
    lists: list[Any] = [None if each is None else each.tolist() for each in (*bounds, None, None)[:4]]
    return slices_of(shape, *lists)


def _around(span: range, size: int) -> tuple[int, int, int]:
    """Returns how many zeros come before, after and between the elements of a span that runs forwards."""
    return (span[0], size - 1 - span[-1], span.step - 1) if span else (0, size, 0)
