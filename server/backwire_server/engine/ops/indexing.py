"""Operators that cut, join and pick."""

from typing import Any

import numpy as np

from backwire_server.engine.dims import Dim
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.geometry import always_view
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axes_of, axis_of, common_dtype, require_equal
from backwire_server.engine.values import O, Value


def _concat_type(first: Value, *more: Value, axis: int) -> TensorType:
    values = (first, *more)
    dtype = common_dtype(values)
    at = axis_of(axis, first.rank)
    for each in more:
        if each.rank != first.rank:
            raise ShapeMismatch("the inputs must have the same rank; use Reshape")
        for place, (a, b) in enumerate(zip(first.shape, each.shape, strict=True)):
            if place != at:
                require_equal(a, b, f"sizes along axis {place}")
    total: Dim = 0
    for each in values:
        total = each.shape[at] + total
    return TensorType(dtype, (*first.shape[:at], total, *first.shape[at + 1 :]))


@op("Concat", shape=_concat_type, samples=[case(F(2, 3), F(2, 1), axis=1), case(F(1, 2), F(3, 2), F(2, 2), axis=-2)])
def concat(first: Array, *more: Array, axis: int, out: Array | None = None) -> Array:
    """The inputs joined along the axis."""
    return np.concatenate((first, *more), axis, out=out)


@gradient("Concat")
def _(g: Value, y: Value, *inputs: Value, axis: int) -> tuple[Value, ...]:
    return tuple(O.Split(g, [each.sizes[axis] for each in inputs], axis=axis))


MOST_PARTS = 65_536


def split_sizes(size: Any, parts: int) -> list[int]:
    """Returns the sizes of equal parts of an axis, of which the last ones may be smaller."""
    each = -(-size // parts)
    return [min(each, max(size - each * place, 0)) for place in range(parts)]


def _split_type(
    x: Value, split: Value | None = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int = 1
) -> tuple[TensorType, ...]:
    at = axis_of(axis, x.rank)
    parts = num_outputs or n_outputs
    if parts > MOST_PARTS:
        raise InvalidAttribute(f"num_outputs is {parts}; at most {MOST_PARTS:,} parts are possible")
    sizes = split.known.tolist() if split is not None else split_sizes(int(x.shape[at]), parts)
    if isinstance(x.shape[at], int) and (sum(sizes) != x.shape[at] or min(sizes) < 0):
        raise ShapeMismatch(f"the sizes {sizes} do not add up to {x.shape[at]}, the size of axis {at}")
    return tuple(TensorType(x.dtype, (*x.shape[:at], size, *x.shape[at + 1 :])) for size in sizes)


@op(
    "Split",
    shape=_split_type,
    outputs=0,
    samples=[
        case(F(2, 6), I(1, 2, 3), axis=1, n_outputs=3),
        case(F(5, 2), n_outputs=2, num_outputs=2),
        case(F(4), axis=-1, n_outputs=2),
    ],
    view=always_view,
)
def split(
    x: Array, split: Array | None = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int = 1
) -> tuple[Array, ...]:
    """x cut along the axis into parts of the given sizes, or of equal ones, of which the last may be smaller."""
    sizes = split.tolist() if split is not None else split_sizes(x.shape[axis], num_outputs or n_outputs)
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@gradient("Split")
def _(g: tuple[Value | None, ...], y: tuple[Value, ...], x: Value, *_: Any, axis: int, num_outputs: Any) -> Value:
    zeros = (O.Expand(each.like(0.0), list(each.shape)) for each in y)
    parts = [each if each is not None else zero for each, zero in zip(g, zeros, strict=True)]
    return O.Concat(*parts, axis=axis)


def slices_of(shape: tuple[int, ...], starts: Any, ends: Any, axes: Any, steps: Any) -> tuple[slice, ...]:
    """Returns the numpy slices of ONNX's Slice: ends beyond the axis are cut, a negative step runs backwards."""
    cut = [slice(None)] * len(shape)
    count = len(starts)
    places = range(count) if axes is None else axes_in_order(axes, len(shape))
    for place, start, end, step in zip(places, starts, ends, steps or [1] * count, strict=True):
        if step == 0:
            raise InvalidAttribute("a step of 0 goes nowhere")
        begin, stop, _ = slice(int(start), int(end), int(step)).indices(shape[place])
        cut[place] = slice(begin, None if stop < 0 else stop, int(step))
    return tuple(cut)


def axes_in_order(axes: Any, rank: int) -> list[int]:
    """Returns the axes counted from the front, in the order given; raises InvalidAttribute when one repeats."""
    axes_of(axes, rank)
    return [axis_of(axis, rank) for axis in axes]


def _slice_arguments(*arguments: Value | None) -> list[list[int] | None]:
    return [None if each is None else each.known.tolist() for each in arguments]


def _slice_type(
    x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> TensorType:
    first, last, places, strides = _slice_arguments(starts, ends, axes, steps)
    touched = range(len(first or [])) if places is None else axes_in_order(places, x.rank)
    shape = tuple(int(dim) if axis in touched else 0 for axis, dim in enumerate(x.shape))
    cut = slices_of(shape, first, last, places, strides)
    lengths = (len(range(*each.indices(size))) for each, size in zip(cut, shape, strict=True))
    pairs = zip(x.shape, lengths, strict=True)
    return TensorType(x.dtype, tuple(n if axis in touched else dim for axis, (dim, n) in enumerate(pairs)))


@op(
    "Slice",
    shape=_slice_type,
    samples=[
        case(F(4, 5), I(1, 0), I(3, 9)),
        case(F(4, 5), I(-1), I(-9), I(1), I(-2)),
        case(F(4, 5), I(0, 1), I(4, -1), I(-1, 0), I(2, 1)),
    ],
    view=always_view,
)
def slice_(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    """x cut to [starts, ends) in steps along the axes, as Python slices do."""
    lists = [None if each is None else each.tolist() for each in (starts, ends, axes, steps)]
    return x[slices_of(x.shape, *lists)]


@gradient("Slice")
def _(g: Value, y: Value, x: Value, *bounds: Value | None) -> Value:
    return O.SliceGradient(g, *bounds, shape=x.sizes)


@op(
    "SliceGradient",
    shape=lambda g, *bounds, shape: TensorType(g.dtype, shape),
    samples=[case(F(2, 5), I(1, 0), I(3, 9), shape=(4, 5))],
    internal=True,
)
def slice_gradient(g: Array, *bounds: Array | None, shape: tuple[int, ...]) -> Array:
    """Zeros of the shape, with g where Slice with these bounds would take it from."""
    lists = [None if each is None else each.tolist() for each in (*bounds, None, None)[:4]]
    result = np.zeros(shape, g.dtype)
    result[slices_of(shape, *lists)] = g
    return result


@gradient("SliceGradient")
def _(g: Value, y: Value, x: Value, *bounds: Value | None, shape: tuple[int, ...]) -> Value:
    return O.Slice(g, *bounds)
