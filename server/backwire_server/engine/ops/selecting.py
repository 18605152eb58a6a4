"""Operators whose result depends on which elements are largest, true, non-zero or different."""

import numpy as np

from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import function, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axis_of, require, require_rank
from backwire_server.engine.values import O, Value

DISTINCT = np.array([[0.3, 1.9, -0.7, 1.1], [2.3, -1.4, 0.8, 0.1]])


@function(
    "TopK",
    outputs=2,
    samples=[
        case(DISTINCT, I(2), n_outputs=2),
        case(DISTINCT, I(1), axis=0, largest=0, n_outputs=2),
        case(DISTINCT, I(4), sorted=0),
    ],
)
def top_k(x: Value, k: Value, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Value, Value]:  # noqa: A002
    """The k largest elements along the axis, or the smallest, in order, and their indices; of equals the first."""
    require_rank(x, 1)
    at = axis_of(axis, x.rank)
    places = O.TopIndices(x, count=int(k.known.reshape(())), axis=at, largest=largest)
    return O.GatherElements(x, places, axis=at), places


def _top_indices_type(x: Value, *, count: int, axis: int, largest: int) -> TensorType:
    require(x, "fi")
    if count < 0 or (isinstance(x.shape[axis], int) and count > x.shape[axis]):
        raise ShapeMismatch(f"k is {count}; axis {axis} has {x.shape[axis]} elements")
    return TensorType.of(np.int64, (*x.shape[:axis], count, *x.shape[axis + 1 :]))


@op("TopIndices", shape=_top_indices_type, samples=[case(DISTINCT, count=2, axis=1, largest=1)], internal=True)
def top_indices(x: Array, *, count: int, axis: int, largest: int) -> Array:
    """The indices of the `count` largest elements along the axis, or of the smallest. Used by TopK."""
    if largest:
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    return np.take(order, np.arange(count), axis)


@function(
    "Compress",
    samples=[
        case(F(3, 2), I(0, 1, 1) > 0, axis=0),
        case(F(3, 2), I(0, 1, 0, 0, 1) > 0),
        case(F(2, 3), I(1) > 0, axis=-1),
    ],
)
def compress(x: Value, condition: Value, *, axis: int | None = None) -> Value:
    """The slices of x along the axis, or the elements of x in C order, for which the condition holds."""
    require(condition, "b")
    require_rank(condition, 1, 1)
    kept = np.flatnonzero(condition.known)
    if axis is None:
        return O.Gather(O.Reshape(x, [-1]), kept)
    return O.Gather(x, kept, axis=axis_of(axis, x.rank))


def _non_zero_type(x: Value) -> TensorType:
    return TensorType.of(np.int64, (x.rank, int(np.count_nonzero(x.known))))


@op("NonZero", shape=_non_zero_type, samples=[case(I([0, 3], [1, 0])), case(np.array([0.0, 2.5]), static=(0,))])
def non_zero(x: Array) -> Array:
    """The indices of the elements that are not zero, one column for each, in C order."""
    return np.argwhere(x).T


@function(
    "Unique",
    outputs=4,
    samples=[
        case(np.array([2.0, 1.0, 1.0, 3.0, 4.0, 3.0]), static=(0,), n_outputs=4),
        case(I(2, 1, 1, 3, 2), sorted=0, n_outputs=4),
        case(I([1, 0, 0], [1, 0, 0], [2, 3, 4]), axis=0, n_outputs=2),
    ],
)
def unique(x: Value, *, axis: int | None = None, sorted: int = 1) -> tuple[Value, ...]:  # noqa: A002
    """The different elements of x, or its different slices along the axis, ascending or in order of appearance.

    Further outputs: where each first appears, which one each element is, and how often each appears.
    """
    at = None if axis is None else axis_of(axis, x.rank)
    _, first, inverse, counts = np.unique(x.known, True, True, True, at)
    if not sorted:
        order = np.argsort(first)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    found = O.Gather(O.Reshape(x, [-1]) if at is None else x, first, axis=at or 0)
    return found, *(x.builder.constant(each.reshape(-1).astype(np.int64)) for each in (first, inverse, counts))
