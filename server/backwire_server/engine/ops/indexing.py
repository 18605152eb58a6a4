"""Operators that cut, join and pick."""

from typing import Any

import numpy as np

from backwire_server.engine.dims import Dim
from backwire_server.engine.errors import InvalidAttribute, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import F, I, case, function, gradient, op
from backwire_server.engine.shapes import axes_of, axis_of, common_dtype, require, require_equal, require_rank
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
def concat(first: Array, *more: Array, axis: int) -> Array:
    """The inputs joined along the axis."""
    return np.concatenate((first, *more), axis)


@gradient("Concat")
def _(g: Value, y: Value, *inputs: Value, axis: int) -> tuple[Value, ...]:
    return tuple(O.Split(g, [each.sizes[axis] for each in inputs], axis=axis))


def _split_sizes(size: Any, parts: int) -> list[int]:
    each = -(-size // parts)
    return [min(each, max(size - each * place, 0)) for place in range(parts)]


def _split_type(
    x: Value, split: Value | None = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int = 1
) -> tuple[TensorType, ...]:
    at = axis_of(axis, x.rank)
    parts = num_outputs or n_outputs
    sizes = split.known.tolist() if split is not None else _split_sizes(int(x.shape[at]), parts)
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
)
def split(
    x: Array, split: Array | None = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int = 1
) -> tuple[Array, ...]:
    """x cut along the axis into parts of the given sizes, or of equal ones, of which the last may be smaller."""
    sizes = split.tolist() if split is not None else _split_sizes(x.shape[axis], num_outputs or n_outputs)
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@gradient("Split")
def _(g: tuple[Value | None, ...], y: tuple[Value, ...], x: Value, *_: Any, axis: int, num_outputs: Any) -> Value:
    zeros = (O.Expand(each.like(0.0), list(each.shape)) for each in y)
    parts = [each if each is not None else zero for each, zero in zip(g, zeros, strict=True)]
    return O.Concat(*parts, axis=axis)


def _slices(shape: tuple[int, ...], starts: Any, ends: Any, axes: Any, steps: Any) -> tuple[slice, ...]:
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
    cut = _slices(shape, first, last, places, strides)
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
)
def slice_(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    """x cut to [starts, ends) in steps along the axes, as Python slices do."""
    lists = [None if each is None else each.tolist() for each in (starts, ends, axes, steps)]
    return x[_slices(x.shape, *lists)]


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
    result[_slices(shape, *lists)] = g
    return result


@gradient("SliceGradient")
def _(g: Value, y: Value, x: Value, *bounds: Value | None, shape: tuple[int, ...]) -> Value:
    return O.Slice(g, *bounds)


def checked_indices(indices: Array, size: int) -> Array:
    """Returns the indices counted from the front; raises InvalidValue when one is outside [-size, size)."""
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        wrong = indices[(indices < -size) | (indices >= size)].flat[0]
        raise InvalidValue(f"index {wrong} is outside [{-size}, {size - 1}]; correct the indices")
    return np.where(indices < 0, indices + size, indices)


def _gather_type(x: Value, indices: Value, *, axis: int = 0) -> TensorType:
    require(indices, "i")
    require_rank(x, 1)
    at = axis_of(axis, x.rank)
    return TensorType(x.dtype, (*x.shape[:at], *indices.shape, *x.shape[at + 1 :]))


@op(
    "Gather",
    shape=_gather_type,
    samples=[case(F(4, 3), I([0, 2], [2, -1])), case(F(3, 4), I(1, 1, 3), axis=1), case(F(4, 2), np.array(2))],
)
def gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """The slices of x at the indices along the axis: an embedding look-up when x is a table."""
    return np.take(x, checked_indices(indices, x.shape[axis]), axis)


@gradient("Gather")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int) -> tuple[Value, None]:
    return O.GatherGradient(g, indices, axis=axis % x.rank, size=x.sizes[axis]), None


def _gather_gradient_type(g: Value, indices: Value, *, axis: int, size: int) -> TensorType:
    return TensorType(g.dtype, (*g.shape[:axis], size, *g.shape[axis + indices.rank :]))


@op(
    "GatherGradient",
    shape=_gather_gradient_type,
    samples=[case(F(2, 2, 3), I([0, 2], [2, -1]), axis=0, size=4)],
    internal=True,
)
def gather_gradient(g: Array, indices: Array, *, axis: int, size: int) -> Array:
    """Zeros with g added at the indices along the axis, which has that size."""
    outer, inner = g.shape[:axis], g.shape[axis + indices.ndim :]
    result = np.zeros((*outer, size, *inner), g.dtype)
    rows = np.moveaxis(g.reshape(*outer, indices.size, *inner), axis, 0)
    np.add.at(np.moveaxis(result, axis, 0), checked_indices(indices, size).reshape(-1), rows)
    return result


@gradient("GatherGradient")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int, size: int) -> tuple[Value, None]:
    return O.Gather(g, indices, axis=axis), None


def _gather_elements_type(x: Value, indices: Value, *, axis: int = 0) -> TensorType:
    require(indices, "i")
    axis_of(axis, x.rank)
    if x.rank != indices.rank:
        raise ShapeMismatch(f"the indices have rank {indices.rank} and the data {x.rank}; they must be equal")
    return TensorType(x.dtype, indices.shape)


def along_axis(indices: Array, axis: int, size: int) -> tuple[Array, ...]:
    """Returns the full index of each element that `indices` picks along the axis."""
    grid: list[Array] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = checked_indices(indices, size)
    return tuple(grid)


@op(
    "GatherElements",
    shape=_gather_elements_type,
    samples=[case(F(3, 3), I([0, 2, 1], [-1, 1, 1])), case(F(2, 4), I([3, 3], [0, 1]), axis=1)],
)
def gather_elements(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """The elements of x whose place along the axis is given by the indices and whose other places are their own."""
    return x[along_axis(indices, axis % x.ndim, x.shape[axis])]


@gradient("GatherElements")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int) -> tuple[Value, None]:
    return O.GatherElementsGradient(g, indices, axis=axis % x.rank, shape=x.sizes), None


@op(
    "GatherElementsGradient",
    shape=lambda g, indices, axis, shape: TensorType(g.dtype, shape),
    samples=[case(F(2, 2), I([3, 3], [0, 1]), axis=1, shape=(2, 4))],
    internal=True,
)
def gather_elements_gradient(g: Array, indices: Array, *, axis: int, shape: tuple[int, ...]) -> Array:
    """Zeros of the shape with g added where GatherElements takes it from."""
    result = np.zeros(shape, g.dtype)
    np.add.at(result, along_axis(indices, axis, shape[axis]), g)
    return result


@gradient("GatherElementsGradient")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int, shape: tuple[int, ...]) -> tuple[Value, None]:
    return O.GatherElements(g, indices, axis=axis), None


@function("OneHot", samples=[case(I(0, 2, -1), np.array(3), F(2)), case(I([0, 1], [2, 0]), I(3), F(2), axis=1)])
def one_hot(indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Value:
    """`values[1]` where the new axis counts to the index, `values[0]` elsewhere; indices may count from the end."""
    count = int(depth.known.reshape(()))
    at = axis_of(axis, indices.rank + 1)
    places = np.arange(count).reshape([-1 if place == at else 1 for place in range(indices.rank + 1)])
    index = O.Unsqueeze(O.Cast(indices, to="int64"), [at])
    hit = O.Equal(O.Where(index < 0, index + count, index), places)
    return O.Where(hit, O.Gather(values, np.array(1)), O.Gather(values, np.array(0)))
