"""Reductions over axes."""

from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array

from backwire_server.engine.graph import Array as Known
from backwire_server.engine.ops.reduction import bounds
from backwire_server.xla.registry import Kernel, kernel


def _reduction(name: str, reduce: Kernel) -> None:
    """Adds a reduction; `reduce` gets the input, the axes counted from the front, and whether they are kept."""

    def over_axes(x: Array, axes: Known | None = None, *, keepdims: int, noop_with_empty_axes: int) -> Array:
        given = () if axes is None else tuple(axis % x.ndim for axis in axes.ravel().tolist())
        return reduce(x, given if given or noop_with_empty_axes else tuple(range(x.ndim)), bool(keepdims))

    kernel(name, static=(1,))(over_axes)


def _wide(x: Array) -> Array:
    """Returns x in the type in which sums over it are formed."""
    if x.dtype.kind in "iu":
        return x.astype(jnp.float64)
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.sum(x, axes, x.dtype, keepdims=keepdims)


def _mean(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    count = prod(x.shape[axis] for axis in axes)
    if x.dtype.kind in "iu":
        total = _sum(x, axes, keepdims).astype(jnp.int64 if x.dtype.kind == "i" else jnp.uint64)
        return (total // max(count, 1)).astype(x.dtype)
    return (jnp.sum(_wide(x), axes, keepdims=keepdims) / count).astype(x.dtype)


def _largest(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.max(x, axes, keepdims=keepdims, initial=bounds(x.dtype)[0])


def _smallest(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.min(x, axes, keepdims=keepdims, initial=bounds(x.dtype)[1])


def _euclidean(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(_wide(x)), axes, keepdims=keepdims)).astype(x.dtype)


def _log_sum_exp(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    wide = _wide(x)
    largest = jnp.max(wide, axes, keepdims=True, initial=-jnp.inf)
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    found = jnp.log(jnp.sum(jnp.exp(wide - largest), axes, keepdims=True)) + largest
    return (found if keepdims else jnp.squeeze(found, axes)).astype(x.dtype)


_reduction("ReduceSum", _sum)
_reduction("ReduceMean", _mean)
_reduction("ReduceMax", _largest)
_reduction("ReduceMin", _smallest)
_reduction("ReduceL2", _euclidean)
_reduction("ReduceLogSumExp", _log_sum_exp)


def _arg(name: str, search: Any) -> None:
    """Adds a search for an extremum along an axis: the first or the last of those that tie."""

    def found(x: Array, *, axis: int, keepdims: int, select_last_index: int) -> Array:
        if not select_last_index:
            return search(x, axis, keepdims=bool(keepdims)).astype(jnp.int64)
        return x.shape[axis] - 1 - search(jnp.flip(x, axis), axis, keepdims=bool(keepdims)).astype(jnp.int64)

    kernel(name)(found)


_arg("ArgMax", jnp.argmax)
_arg("ArgMin", jnp.argmin)
