"""Scatter operators, GatherND and their gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np

from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.picking import along_axis, checked_indices, require_within
from backwire_server.engine.registry import gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axis_of, common_dtype, require, require_equal, require_rank
from backwire_server.engine.values import O, Value

UPDATES: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
Move = Callable[[Value], Value]


def _scattered(x: Array, places: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    result = x.copy()
    if reduction == "none":
        result[places] = updates
    else:
        UPDATES[reduction].at(result, places, updates)
    return result


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", *UPDATES):
        raise InvalidAttribute(f"reduction is {reduction!r}; use none, {', '.join(UPDATES)}")


def _scatter_gradient(
    g: Value, y: Value, x: Value, updates: Value, reduction: str, gather: Move, scatter: Callable[..., Value]
) -> tuple[Value, None, Value]:
    """Returns the gradients of a scatter, told how to read at its places and how to write there.

    `scatter(base, updates, reduction)` writes. Where elements tie for the largest or smallest, they share equally.
    """
    if reduction == "none":
        return scatter(g, O.Expand(g.like(0.0), list(updates.shape)), "none"), None, gather(g)
    if reduction == "add":
        return g, None, gather(g)
    if reduction == "mul":
        return _product_gradient(g, x, updates, gather, scatter)
    mine = O.Cast(O.Equal(x, y), to=x.dtype.name)
    theirs = O.Cast(O.Equal(updates, gather(y)), to=x.dtype.name)
    share = g / scatter(mine, theirs, "add")
    return O.Where(O.Equal(x, y), share, 0.0), None, gather(share) * theirs


def _product_gradient(
    g: Value, x: Value, updates: Value, gather: Move, scatter: Callable[..., Value]
) -> tuple[Value, None, Value]:
    """Multiplies each gradient by the other factors, which are counted apart where some are 0."""
    zero = O.Cast(O.Equal(updates, 0.0), to=x.dtype.name)
    factors = O.Where(O.Equal(updates, 0.0), 1.0, updates)
    zeros = scatter(O.Expand(x.like(0.0), list(x.shape)), zero, "add")
    others = gather(scatter(x, factors, "mul")) / factors
    alone = O.Equal(gather(zeros), zero)
    ones = O.Expand(x.like(1.0), list(x.shape))
    return g * scatter(ones, updates, "mul"), None, O.Where(alone, gather(g) * others, 0.0)


def _scatter_elements_type(
    x: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
) -> TensorType:
    _check_reduction(reduction)
    require(indices, "i")
    axis_of(axis, x.rank)
    require_rank(indices, x.rank, x.rank)
    require_rank(updates, x.rank, x.rank)
    require_within(indices, x, axis)
    for place, (a, b) in enumerate(zip(indices.shape, updates.shape, strict=True)):
        require_equal(a, b, f"sizes of indices and updates along axis {place}")
    return TensorType(common_dtype([x, updates]), x.shape)


ELEMENTS = (F(3, 3), I([0, 2, 1], [2, 1, 0]), F(2, 3))
REPEATED = (F(2, 4), I([3, 3], [0, 1]), F(2, 2))


@op(
    "ScatterElements",
    shape=_scatter_elements_type,
    samples=[
        case(*ELEMENTS),
        case(F(2, 4), I([3, 0], [0, -3]), F(2, 2), axis=-1),
        *(case(*REPEATED, axis=1, reduction=reduction) for reduction in UPDATES),
    ],
)
def scatter_elements(x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    """x with the updates written where GatherElements with these indices would read, or combined with what is there.

    `reduction` is none (write), add, mul, max or min; with none, the indices must not repeat.
    """
    return _scattered(x, along_axis(indices, axis % x.ndim, x.shape[axis]), updates, reduction)


@gradient("ScatterElements")
def _(
    g: Value, y: Value, x: Value, indices: Value, updates: Value, *, axis: int, reduction: str
) -> tuple[Value, None, Value]:
    def gather(value: Value) -> Value:
        return O.GatherElements(value, indices, axis=axis)

    def scatter(base: Value, new: Value, how: str) -> Value:
        return O.ScatterElements(base, indices, new, axis=axis, reduction=how)

    return _scatter_gradient(g, y, x, updates, reduction, gather, scatter)


def _depth(x: Value, indices: Value, batch_dims: int = 0) -> int:
    """Returns how many axes of x each index names."""
    require(indices, "i")
    require_rank(indices, 1)
    depth = int(indices.shape[-1])
    if not (0 <= batch_dims < indices.rank and 1 <= depth <= x.rank - batch_dims):
        raise ShapeMismatch(
            f"indices of length {depth} after {batch_dims} batch axes do not fit into rank {x.rank}; shorten them"
        )
    for place in range(batch_dims):
        require_equal(x.shape[place], indices.shape[place], f"sizes of data and indices along axis {place}")
    return depth


def _places(shape: tuple[int, ...], indices: Array, batch_dims: int = 0) -> tuple[Array, ...]:
    """Returns the indices as one array per axis that they name, those of the batch axes first."""
    grid = np.indices(indices.shape[:-1], sparse=True)[:batch_dims]
    named = range(indices.shape[-1])
    return (*grid, *(checked_indices(indices[..., each], shape[batch_dims + each]) for each in named))


def _gather_nd_type(x: Value, indices: Value, *, batch_dims: int = 0) -> TensorType:
    depth = _depth(x, indices, batch_dims)
    return TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch_dims + depth :]))


@op(
    "GatherND",
    shape=_gather_nd_type,
    samples=[
        case(F(2, 3), I([0, 0], [1, -1])),
        case(F(2, 3, 2), I([[1]], [[1]])),
        case(F(2, 3, 2), I([1], [0]), batch_dims=1),
        case(F(2, 2, 3), I([[1], [0]], [[2], [2]]), batch_dims=2),
    ],
)
def gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """The elements or slices of x at the indices in the last axis; the first axes of both may be a common batch."""
    return x[_places(x.shape, indices, batch_dims)]


@gradient("GatherND")
def _(g: Value, y: Value, x: Value, indices: Value, *, batch_dims: int) -> tuple[Value, None]:
    return O.GatherNDGradient(g, indices, batch_dims=batch_dims, shape=x.sizes), None


@op(
    "GatherNDGradient",
    shape=lambda g, indices, batch_dims, shape: TensorType(g.dtype, shape),
    samples=[case(F(2, 2), I([1], [0]), batch_dims=1, shape=(2, 3, 2))],
    internal=True,
)
def gather_nd_gradient(g: Array, indices: Array, *, batch_dims: int, shape: tuple[int, ...]) -> Array:
    """Zeros of the shape with g added where GatherND takes it from."""
    result = np.zeros(shape, g.dtype)
    np.add.at(result, _places(shape, indices, batch_dims), g)
    return result


@gradient("GatherNDGradient")
def _(g: Value, y: Value, x: Value, indices: Value, *, batch_dims: int, shape: tuple[int, ...]) -> tuple[Value, None]:
    return O.GatherND(g, indices, batch_dims=batch_dims), None


def _scatter_nd_type(x: Value, indices: Value, updates: Value, *, reduction: str = "none") -> TensorType:
    _check_reduction(reduction)
    expected = (*indices.shape[:-1], *x.shape[_depth(x, indices) :])
    require_rank(updates, len(expected), len(expected))
    for place, (a, b) in enumerate(zip(updates.shape, expected, strict=True)):
        require_equal(a, b, f"the size of the updates along axis {place} and that of the places")
    return TensorType(common_dtype([x, updates]), x.shape)


@op(
    "ScatterND",
    shape=_scatter_nd_type,
    samples=[
        case(F(4), I([1], [3]), F(2)),
        case(F(2, 3, 2), I([[1, 0]], [[0, -1]]), F(2, 1, 2)),
        *(case(F(4, 2), I([1], [3], [1]), F(3, 2), reduction=reduction) for reduction in UPDATES),
    ],
)
def scatter_nd(x: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """x with the updates written where GatherND with these indices would read, or combined with what is there.

    `reduction` is none (write), add, mul, max or min; with none, the indices must not repeat.
    """
    return _scattered(x, _places(x.shape, indices), updates, reduction)


@gradient("ScatterND")
def _(g: Value, y: Value, x: Value, indices: Value, updates: Value, *, reduction: str) -> tuple[Value, None, Value]:
    def gather(value: Value) -> Value:
        return O.GatherND(value, indices)

    def scatter(base: Value, new: Value, how: str) -> Value:
        return O.ScatterND(base, indices, new, reduction=how)

    return _scatter_gradient(g, y, x, updates, reduction, gather, scatter)
