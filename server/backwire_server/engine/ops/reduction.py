"""Reductions over axes."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from backwire_server.engine.dims import Dim, Shape, product
from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.geometry import order_of
from backwire_server.engine.graph import Array, DType, TensorType
from backwire_server.engine.operators import Rule
from backwire_server.engine.ops.sums import sum_over, summing
from backwire_server.engine.registry import Call, Take, gradient, op, prepared, stored
from backwire_server.engine.samples import F, I, Sample, case
from backwire_server.engine.shapes import axes_of, axis_of, require
from backwire_server.engine.values import O, Value

SAMPLES = [
    case(F(2, 3)),
    case(F(2, 3, 4), I(1, -1)),
    case(F(2, 3, 4), I(0), keepdims=0),
    case(F(2, 3), noop_with_empty_axes=1),
    case(F(2, 3), None, keepdims=0),
    case(F()),
]


def reduced_axes(x: Value, axes: Value | None, noop_with_empty_axes: int) -> tuple[int, ...]:
    """Returns the axes that a reduction goes over: all when none are given, unless told that none means none."""
    given = axes_of(axes.known.ravel().tolist(), x.rank) if axes is not None else ()
    return given if given or noop_with_empty_axes else tuple(range(x.rank))


def _reduced_shape(x: Value, axes: tuple[int, ...], keepdims: int) -> Shape:
    return tuple(1 if axis in axes else dim for axis, dim in enumerate(x.shape) if keepdims or axis not in axes)


def _reduction_type(kinds: str) -> Rule:
    def shape(x: Value, axes: Value | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> TensorType:
        require(x, kinds)
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return TensorType(x.dtype, _reduced_shape(x, over, keepdims))

    return shape


def _restored(value: Value, x: Value, axes: Value | None, keepdims: int, noop_with_empty_axes: int) -> Value:
    """Returns a reduction's result, or its gradient, with the reduced axes as size 1 again."""
    if keepdims:
        return value
    shape = _reduced_shape(x, reduced_axes(x, axes, noop_with_empty_axes), 1)
    return O.Reshape(value, list(shape), allowzero=1)


def _reduction(
    name: str, reduce: Rule, doc: str, rule: Rule, *, kinds: str = "fi", samples: Sequence[Sample] = SAMPLES
) -> None:
    """Adds a reduction. `rule` gets the gradient and the result, reduced axes kept, the input and the axes."""

    def kernel(
        x: Array,
        axes: Array | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
        out: Array | None = None,
    ) -> Array:
        over = tuple(axes.ravel().tolist()) if axes is not None else ()
        result = reduce(x, axis=over or (() if noop_with_empty_axes else None), keepdims=bool(keepdims))
        return stored(np.asarray(result), out)

    def backward(g: Value, y: Value, x: Value, axes: Value | None = None, **options: Any) -> Value:
        over = reduced_axes(x, axes, options["noop_with_empty_axes"])
        g, y = (_restored(each, x, axes, **options) for each in (g, y))
        return rule(g, y, x, over)

    kernel.__doc__ = doc
    op(name, shape=_reduction_type(kinds), samples=samples)(kernel)
    gradient(name)(backward)


def count(x: Value, axes: tuple[int, ...]) -> Dim:
    """Returns how many elements each result of a reduction is made of."""
    return product(x.shape[axis] for axis in axes)


def _sum(x: Array, *, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    axes = tuple(range(x.ndim)) if axis is None else tuple(each % x.ndim for each in axis)
    found = sum_over(x, axes)
    return found if keepdims else found.reshape([size for each, size in enumerate(x.shape) if each not in axes])


def _mean(x: Array, **options: Any) -> Array:
    if x.dtype.kind in "iu":
        return (np.sum(x, dtype=x.dtype, **options) // np.sum(np.ones_like(x), **options)).astype(x.dtype)
    if x.dtype.itemsize < 4:
        return np.asarray(np.mean(x, dtype=np.float32, **options)).astype(x.dtype)
    total = _sum(x, **options)
    return np.asarray(np.divide(total, x.dtype.type(x.size / total.size if total.size else 1)))


def bounds(dtype: DType) -> tuple[Any, Any]:
    """Returns the least and the greatest value that the dtype has."""
    if dtype.kind == "b":
        return False, True
    if dtype.kind in "iu":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return dtype.type(-np.inf), dtype.type(np.inf)


def _largest(x: Array, **options: Any) -> Array:
    return np.max(x, initial=bounds(x.dtype)[0], **options)


def _smallest(x: Array, **options: Any) -> Array:
    return np.min(x, initial=bounds(x.dtype)[1], **options)


def _ties(y: Value, x: Value, axes: tuple[int, ...]) -> Value:
    """Returns the share of each element in the extremum: 1, or 1/n where n elements tie."""
    mask = O.Cast(O.Equal(x, y), to=x.dtype.name)
    return mask / (O.ReduceSum(mask, list(axes)) if axes else 1.0)


def _reducing(name: str, calls_for: Rule) -> None:
    """Registers how a reduction is prepared: `calls_for` gets the result with its axes kept, x, the axes and `take`."""

    def prepare(
        out: Array,
        x: Array,
        axes: Array | None = None,
        *,
        keepdims: int,
        noop_with_empty_axes: int,
        take: Take,
    ) -> list[Call]:
        places = _places(x, axes, noop_with_empty_axes)
        kept = out if keepdims else np.expand_dims(out, tuple(places))
        calls: list[Call] = calls_for(kept, x, places, take)
        return calls

    def combines(x: Array, axes: Array | None = None, *, keepdims: int, noop_with_empty_axes: int) -> Any:
        return _places(x, axes, noop_with_empty_axes), bool(keepdims)

    prepared(name, order=_order, reads=(1,), combines=combines)(prepare)


def _places(x: Array, axes: Array | None, noop_with_empty_axes: int) -> list[int]:
    given = axes.ravel().tolist() if axes is not None else ()
    return [axis % x.ndim for axis in (given if given or noop_with_empty_axes else range(x.ndim))]


def _order(x: Array, axes: Array | None = None, *, keepdims: int, **_: int) -> tuple[int, ...] | None:
    return order_of(x) if keepdims else None


def _extreme(ufunc: np.ufunc, out: Array, x: Array, axes: Sequence[int], take: Take) -> list[Call]:
    start = bounds(x.dtype)[ufunc is np.minimum]
    return [partial(ufunc.reduce, x, axis=tuple(axes), out=out, keepdims=True, initial=start)]


def _averaging(out: Array, x: Array, axes: Sequence[int], take: Take) -> list[Call]:
    count = prod(x.shape[axis] for axis in axes)
    if x.dtype not in (np.float32, np.float64):
        return [lambda: stored(_mean(x, axis=tuple(axes), keepdims=True), out)]
    return [*summing(out, x, axes, take), partial(np.divide, out, x.dtype.type(count), out=out)]


_reduction("ReduceSum", _sum, "The sum over the axes.", lambda g, y, x, axes: O.Expand(g, list(x.shape)) if axes else g)
_reduction(
    "ReduceMean",
    _mean,
    "The mean over the axes.",
    lambda g, y, x, axes: O.Expand(g / float(count(x, axes)), list(x.shape)) if axes else g,
)
_reduction(
    "ReduceMax",
    _largest,
    "The largest element over the axes; elements that tie share the gradient.",
    lambda g, y, x, axes: g * _ties(y, x, axes),
    kinds="fib",
)
_reduction(
    "ReduceMin",
    _smallest,
    "The smallest element over the axes; elements that tie share the gradient.",
    lambda g, y, x, axes: g * _ties(y, x, axes),
    kinds="fib",
)


def _euclidean(x: Array, **options: Any) -> Array:
    wide = x.astype(np.float64) if x.dtype.kind in "iu" else x
    return np.sqrt(np.sum(wide * wide, dtype=wide.dtype, **options)).astype(x.dtype, copy=False)


def _log_sum_exp(x: Array, **options: Any) -> Array:
    wide = x.astype(np.float64) if x.dtype.kind in "iu" else x
    largest = np.max(wide, axis=options["axis"], keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, 0).astype(wide.dtype)
    total = np.sum(np.exp(wide - largest), axis=options["axis"], dtype=wide.dtype, keepdims=True)
    result = np.log(total) + largest
    return (result if options["keepdims"] else np.squeeze(result, options["axis"])).astype(x.dtype, copy=False)


_reduction(
    "ReduceL2",
    _euclidean,
    "The square root of the sum of squares over the axes; where that is 0, so is the gradient.",
    lambda g, y, x, axes: g * x / O.Where(O.Equal(y, 0.0), 1.0, y),
    samples=[case(F(2, 3)), case(F(2, 3, 4), I(1, -1)), case(F(2, 3, 4), I(0), keepdims=0), case(F(3, low=0.5))],
)
_reduction(
    "ReduceLogSumExp",
    _log_sum_exp,
    "The logarithm of the sum of e^x over the axes, computed without overflow.",
    lambda g, y, x, axes: g * O.Exp(x - y),
)

_reducing("ReduceSum", summing)
_reducing("ReduceMean", _averaging)
_reducing("ReduceMax", partial(_extreme, np.maximum))
_reducing("ReduceMin", partial(_extreme, np.minimum))


def _arg_type(x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> TensorType:
    require(x, "fi")
    if not x.rank:
        raise ShapeMismatch("a scalar has no axis to search")
    over = (axis_of(axis, x.rank),)
    if x.shape[over[0]] == 0:
        raise ShapeMismatch(f"axis {over[0]} has no elements to search; leave such inputs out")
    return TensorType.of(np.int64, _reduced_shape(x, over, keepdims))


def _arg(name: str, search: Rule, doc: str) -> None:
    def kernel(x: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        if not select_last_index:
            return np.asarray(search(x, axis=axis, keepdims=bool(keepdims)))
        return x.shape[axis] - 1 - np.asarray(search(np.flip(x, axis), axis=axis, keepdims=bool(keepdims)))

    kernel.__doc__ = doc
    op(name, shape=_arg_type, samples=[case(F(2, 3)), case(F(2, 3), axis=-1, keepdims=0, select_last_index=1)])(kernel)


_arg("ArgMax", np.argmax, "The index of the largest element along the axis, the first where several tie.")
_arg("ArgMin", np.argmin, "The index of the smallest element along the axis, the first where several tie.")
