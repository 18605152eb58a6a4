"""Operators that pick elements by indices."""

from math import prod

import numpy as np

from backwire_server.engine.errors import InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import Call, Take, function, gradient, op, prepared
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axis_of, require, require_rank
from backwire_server.engine.values import O, Value


def no_place(index: object, lowest: int, size: int) -> str:
    """Returns what is wrong with an index, and the remedy."""
    return f"index {index} is outside [{lowest}, {size - 1}]; correct the indices"


def checked_indices(indices: Array, size: int, *, from_end: int = 1) -> Array:
    """Returns the indices counted from the front; raises InvalidValue when one is outside [-size, size).

    Unless they may count `from_end`, negative ones are wrong, too.
    """
    unsigned = indices.view(f"u{indices.itemsize}")  # so that negative ones are the largest
    if not indices.size or unsigned.max() < size:
        return indices
    lowest = -size if from_end else 0
    if not (lowest <= indices.min() and indices.max() < size):
        wrong = indices[(indices < lowest) | (indices >= size)].flat[0]
        raise InvalidValue(no_place(wrong, lowest, size))
    return np.where(indices < 0, indices.astype(np.int64) + size, indices)


def _gather_type(x: Value, indices: Value, *, axis: int = 0, from_end: int = 1) -> TensorType:
    require(indices, "i")
    require_rank(x, 1)
    at = axis_of(axis, x.rank)
    return TensorType(x.dtype, (*x.shape[:at], *indices.shape, *x.shape[at + 1 :]))


@op(
    "Gather",
    shape=_gather_type,
    samples=[
        case(F(4, 3), I([0, 2], [2, -1])),
        case(F(3, 4), I(1, 1, 3), axis=1, from_end=0),
        case(F(4, 2), np.array(2)),
    ],
)
def gather(x: Array, indices: Array, *, axis: int = 0, from_end: int = 1, out: Array | None = None) -> Array:
    """The slices of x at the indices along the axis: an embedding look-up when x is a table.

    Negative indices count from the end, as in ONNX; with `from_end=0`, which ONNX does not have, they are refused.
    """
    return np.take(x, checked_indices(indices, x.shape[axis], from_end=from_end), axis, out=out, mode="clip")


@gradient("Gather")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int, from_end: int) -> tuple[Value, None]:
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
    require_within(indices, x, axis)
    return TensorType(x.dtype, indices.shape)


def require_within(indices: Value, x: Value, axis: int) -> None:
    """Raises ShapeMismatch when indices along the axis of x reach beyond x along another axis."""
    for place, (count, size) in enumerate(zip(indices.shape, x.shape, strict=True)):
        if place != axis % x.rank and isinstance(count, int) and isinstance(size, int) and count > size:
            raise ShapeMismatch(f"the indices have {count} places along axis {place} and the data {size}; use Slice")


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


@prepared("GatherElements")
def _(out: Array, x: Array, indices: Array, *, axis: int, take: Take) -> list[Call]:
    if not x.flags.c_contiguous:
        return [lambda: np.copyto(out, gather_elements(x, indices, axis=axis))]
    base, flat, stride = (
        _flat_places(x.shape, indices.shape, axis % x.ndim),
        take(indices.shape, np.int64),
        _stride(x, axis),
    )

    def pick() -> None:
        np.multiply(checked_indices(indices, x.shape[axis]), stride, out=flat, dtype=np.int64, casting="unsafe")
        np.add(flat, base, out=flat)
        x.reshape(-1).take(flat, out=out, mode="clip")

    return [pick]


def _stride(x: Array, axis: int) -> int:
    return prod(x.shape[axis % x.ndim + 1 :])


def _flat_places(shape: tuple[int, ...], picked: tuple[int, ...], axis: int) -> Array:
    """Returns where the elements picked along the axis begin in an array of that shape, counted in C order."""
    places = np.zeros(picked, np.int64)
    for each in range(len(shape)):
        if each != axis:
            steps = np.arange(picked[each]) * prod(shape[each + 1 :])
            places += steps.reshape([-1 if other == each else 1 for other in range(len(shape))])
    return places


@gradient("GatherElements")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int) -> tuple[Value, None]:
    return O.GatherElementsGradient(g, indices, axis=axis % x.rank, shape=x.sizes), None


@op(
    "GatherElementsGradient",
    shape=lambda g, indices, axis, shape: TensorType(g.dtype, shape),
    samples=[case(F(2, 2), I([3, 3], [0, 1]), axis=1, shape=(2, 4))],
    internal=True,
)
def gather_elements_gradient(
    g: Array, indices: Array, *, axis: int, shape: tuple[int, ...], out: Array | None = None
) -> Array:
    """Zeros of the shape with g added where GatherElements takes it from."""
    result = np.empty(shape, g.dtype) if out is None else out
    result.fill(0)
    places = along_axis(indices, axis, shape[axis])
    if indices.shape[axis] == 1:  # no place comes twice
        result[places] = g
    else:
        np.add.at(result, places, g)
    return result


@gradient("GatherElementsGradient")
def _(g: Value, y: Value, x: Value, indices: Value, *, axis: int, shape: tuple[int, ...]) -> tuple[Value, None]:
    return O.GatherElements(g, indices, axis=axis), None


@function("OneHot", samples=[case(I(0, 2, -1), np.array(3), F(2)), case(I([0, 1], [2, 0]), I(3), F(2), axis=1)])
def one_hot(indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Value:
    """`values[1]` where the new axis counts to the index, `values[0]` elsewhere; indices may count from the end."""
    count = indices.builder.make(int(depth.known.reshape(())))
    at = axis_of(axis, indices.rank + 1)
    places = np.arange(count).reshape([-1 if place == at else 1 for place in range(indices.rank + 1)])
    index = O.Unsqueeze(O.Cast(indices, to="int64"), [at])
    hit = O.Equal(O.Where(index < 0, index + count, index), places)
    return O.Where(hit, O.Gather(values, np.array(1)), O.Gather(values, np.array(0)))
