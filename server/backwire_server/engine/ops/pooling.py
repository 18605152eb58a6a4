"""Pooling over windows of the spatial axes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.geometry import order_of
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.reduction import bounds
from backwire_server.engine.registry import Call, Take, function, gradient, op, prepared
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import require, require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import Window, window_of

Ints = tuple[int, ...]

SAMPLES = [
    case(F(2, 3, 4, 4), kernel_shape=(2, 2), strides=(2, 2)),
    case(F(1, 2, 5, 4), kernel_shape=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1)),
    case(F(1, 2, 5, 5), kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1),
    case(F(1, 1, 7), kernel_shape=(2,), dilations=(3,)),
    case(F(1, 1, 5, 6), kernel_shape=(3, 3), strides=(2, 2), auto_pad="SAME_LOWER"),
]
PRIMITIVE: dict[str, Any] = {"kernel": (2, 2), "strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (1, 2)}


def geometry_of(window: Window) -> dict[str, Ints]:
    """Returns a window as the attributes of a primitive operator."""
    return {"kernel": window.kernel, "strides": window.strides, "pads": window.pads, "dilations": window.dilations}


def _pooled_type(x: Value, *_: Value, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints) -> TensorType:
    require(x, "fi")
    sizes = Window(kernel, strides, pads, dilations).output_sizes(x.shape[2:])
    return TensorType(x.dtype, (*x.shape[:2], *sizes))


@function(
    "MaxPool",
    outputs=2,
    samples=[*SAMPLES, case(F(1, 2, 4, 4), kernel_shape=(2, 2), storage_order=1, pads=(1,) * 4, n_outputs=2)],
)
def max_pool(
    x: Value,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
    n_outputs: int = 1,
) -> tuple[Value, ...]:
    """The largest element of each window of x [N, C, d1, ...]; where several tie, the first has the gradient.

    The second output is the index of that element in x in C order; with `storage_order` 1, in Fortran order within
    the spatial axes.
    """
    require_rank(x, 3)
    geometry = geometry_of(window_of(x.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode))
    if n_outputs == 1:
        return (O.MaxPooling(x, **geometry),)
    return O.MaxPooling(x, **geometry), O.MaxPoolingIndices(x, column_major=storage_order, **geometry)


@op("MaxPooling", shape=_pooled_type, samples=[case(F(1, 2, 4, 5), **PRIMITIVE)], internal=True)
def max_pooling(x: Array, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints) -> Array:
    """MaxPool with everything explicit. Used by MaxPool."""
    window = Window(kernel, strides, pads, dilations)
    padded = window.padded(x, bounds(x.dtype)[0])
    outputs = [int(size) for size in window.output_sizes(x.shape[2:])]
    parts = (padded[(slice(None), slice(None), *slices)] for _, slices in window.offsets(outputs))
    result = next(parts).copy()
    for part in parts:
        np.maximum(result, part, out=result)
    return result


@prepared("MaxPooling", order=lambda x, **_: order_of(x))
def _(out: Array, x: Array, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, take: Take) -> list[Call]:
    window = Window(kernel, strides, pads, dilations)
    calls: list[Call] = []
    padded = _padded(window, x, bounds(x.dtype)[0], take, calls)
    first, *rest = (padded[(slice(None), slice(None), *slices)] for _, slices in window.offsets(out.shape[2:]))
    calls.append(partial(np.maximum, first, rest[0] if rest else first, out=out))
    return [*calls, *(partial(np.maximum, out, part, out=out) for part in rest[1:])]


def _padded(window: Window, x: Array, value: Any, take: Take, calls: list[Call]) -> Array:
    """Returns x with its spatial axes padded, in the order in which x lies in memory."""
    if not any(window.pads):
        return x
    rank = len(window.kernel)
    order = order_of(x) or tuple(range(x.ndim))
    sizes = [*x.shape[:2], *(n + window.pads[i] + window.pads[i + rank] for i, n in enumerate(x.shape[2:]))]
    room = take([sizes[axis] for axis in order], x.dtype).transpose(np.argsort(order))
    calls += [partial(room.fill, value), partial(np.copyto, room[_inside(window.pads, x.shape[2:])], x)]
    return room


def _inside(pads: Ints, sizes: Sequence[int]) -> Any:
    """Returns the index of what a padded array had before."""
    return (..., *(slice(before, before + size) for before, size in zip(pads, sizes, strict=False)))


@gradient("MaxPooling")
def _(g: Value, y: Value, x: Value, **geometry: Ints) -> Value:
    return O.MaxPoolingGradient(g, x, y, **geometry)


def _winners(x: Array, y: Array, window: Window) -> Array:
    """Returns, for each window, the place in the kernel (counted in C order) of the first element not less than y."""
    views = window.views(window.padded(x, bounds(x.dtype)[0]))
    flat = views.reshape(*y.shape, int(np.prod(window.kernel)))
    return np.asarray(np.argmin(flat < y[..., None], axis=-1))


@op("MaxPoolingGradient", shape=lambda g, x, y, kernel, strides, pads, dilations: x.type, samples=[], internal=True)
def max_pooling_gradient(
    g: Array, x: Array, y: Array, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints
) -> Array:
    """The gradient of MaxPooling: g where each window's largest element is."""
    window = Window(kernel, strides, pads, dilations)
    count = int(np.prod(kernel))
    chosen = _winners(x, y, window)[..., None] == np.arange(count)
    return window.folded(np.where(chosen, g[..., None], 0).astype(g.dtype).reshape(*g.shape, *kernel), x.shape[2:])


@prepared("MaxPoolingGradient", order=lambda g, x, y, **_: order_of(x))
def _(
    out: Array,
    g: Array,
    x: Array,
    y: Array,
    *,
    kernel: Ints,
    strides: Ints,
    pads: Ints,
    dilations: Ints,
    take: Take,
) -> list[Call]:
    window = Window(kernel, strides, pads, dilations)
    calls: list[Call] = []
    order = order_of(y) or tuple(range(y.ndim))
    shape, back = [y.shape[axis] for axis in order], np.argsort(order)
    padded = _padded(window, x, bounds(x.dtype)[0], take, calls)
    spread = _padded(window, out, 0, take, []) if any(pads) else out
    bits = np.dtype(f"i{g.dtype.itemsize}")
    slope, part, mask = (take(shape, each).transpose(back) for each in (g.dtype, g.dtype, bits))
    chosen, left = (take(shape, np.bool_).transpose(back) for _ in range(2))
    calls += [partial(spread.fill, 0), partial(left.fill, True), partial(np.copyto, slope, g)]
    for _, slices in window.offsets(y.shape[2:]):
        place = (slice(None), slice(None), *slices)
        calls += [
            partial(np.less, padded[place], y, out=chosen),
            partial(np.greater, left, chosen, out=chosen),  # left, and not less: as in `_winners` also for NaN
            partial(np.logical_xor, left, chosen, out=left),
            partial(np.negative, chosen.view(np.int8), out=mask, dtype=bits, casting="unsafe"),
            partial(np.bitwise_and, slope.view(bits), mask, out=part.view(bits)),
            partial(np.add, spread[place], part, out=spread[place]),
        ]
    if spread is not out:
        calls.append(partial(np.copyto, out, spread[_inside(pads, x.shape[2:])]))
    return calls


@gradient("MaxPoolingGradient")
def _(g: Value, h: Value, x: Value, data: Value, y: Value, **geometry: Ints) -> tuple[Value, None, None]:
    return O.MaxPoolingSelect(g, data, y, **geometry), None, None


@op("MaxPoolingSelect", shape=lambda g, x, y, kernel, strides, pads, dilations: y.type, samples=[], internal=True)
def max_pooling_select(
    g: Array, x: Array, y: Array, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints
) -> Array:
    """The element of g where each window of x has its largest."""
    window = Window(kernel, strides, pads, dilations)
    views = window.views(window.padded(g, 0.0)).reshape(*y.shape, int(np.prod(window.kernel)))
    return np.take_along_axis(views, _winners(x, y, window)[..., None], -1)[..., 0]


@gradient("MaxPoolingSelect")
def _(g: Value, h: Value, x: Value, data: Value, y: Value, **geometry: Ints) -> tuple[Value, None, None]:
    return O.MaxPoolingGradient(g, data, y, **geometry), None, None


def _indices_type(x: Value, *, column_major: int, **geometry: Ints) -> TensorType:
    if any(size == 0 for size in x.shape[2:]):
        raise ShapeMismatch("there are no elements whose index could be told; leave the second output out")
    return TensorType.of(np.int64, _pooled_type(x, **geometry).shape)


@op("MaxPoolingIndices", shape=_indices_type, samples=[case(F(1, 2, 4, 5), column_major=0, **PRIMITIVE)], internal=True)
def max_pooling_indices(
    x: Array, *, column_major: int, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints
) -> Array:
    """The index in x of each window's largest element. Used by MaxPool."""
    window = Window(kernel, strides, pads, dilations)
    y = max_pooling(x, kernel=kernel, strides=strides, pads=pads, dilations=dilations)
    places = np.unravel_index(_winners(x, y, window), kernel)
    steps: list[Array] = list(np.indices(y.shape, sparse=True))
    spatial = tuple(
        steps[axis + 2] * stride + places[axis] * dilations[axis] - pads[axis] for axis, stride in enumerate(strides)
    )
    flat = np.ravel_multi_index(spatial, x.shape[2:], mode="clip", order="F" if column_major else "C")
    planes = steps[0] * x.shape[1] + steps[1]
    return np.asarray(planes * int(np.prod(x.shape[2:])) + flat, np.int64)


@op("SumPooling", shape=_pooled_type, samples=[case(F(1, 2, 4, 5), **PRIMITIVE)], internal=True)
def sum_pooling(x: Array, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints) -> Array:
    """The sum of each window. Used by AveragePool."""
    window = Window(kernel, strides, pads, dilations)
    padded = window.padded(x, 0.0)
    outputs = [int(size) for size in window.output_sizes(x.shape[2:])]
    result = np.zeros((*x.shape[:2], *outputs), x.dtype)
    for _, slices in window.offsets(outputs):
        result += padded[(slice(None), slice(None), *slices)]
    return result


@gradient("SumPooling")
def _(g: Value, y: Value, x: Value, **geometry: Ints) -> Value:
    return O.SumPoolingGradient(g, sizes=x.sizes[2:], **geometry)


@op(
    "SumPoolingGradient",
    shape=lambda g, sizes, kernel, strides, pads, dilations: TensorType(g.dtype, (*g.shape[:2], *sizes)),
    samples=[case(F(1, 2, 2, 4), sizes=(4, 5), **PRIMITIVE)],
    internal=True,
)
def sum_pooling_gradient(g: Array, *, sizes: Ints, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints) -> Array:
    """The gradient of SumPooling: each element of g added to all of its window."""
    window = Window(kernel, strides, pads, dilations)
    spread = np.broadcast_to(g.reshape(*g.shape, *[1] * len(kernel)), (*g.shape, *kernel))
    return window.folded(spread, sizes)


@gradient("SumPoolingGradient")
def _(g: Value, y: Value, x: Value, *, sizes: Ints, **geometry: Ints) -> Value:
    return O.SumPooling(g, **geometry)
