"""Reductions made of other reductions, and running sums and products."""

import numpy as np

from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.reduction import SAMPLES, reduced_axes
from backwire_server.engine.registry import function, gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axis_of, require, require_rank
from backwire_server.engine.values import O, Value


@function("ReduceSumSquare", samples=SAMPLES)
def reduce_sum_square(
    x: Value, axes: Value | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Value:
    """The sum of the squares over the axes."""
    return O.ReduceSum(x * x, axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)


@function("ReduceL1", samples=SAMPLES)
def reduce_l1(x: Value, axes: Value | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
    """The sum of the magnitudes over the axes."""
    return O.ReduceSum(O.Abs(x), axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)


@function("ReduceLogSum", samples=[case(F(2, 3, low=0.3)), case(F(2, 3, 4, low=0.3), I(1), keepdims=0)])
def reduce_log_sum(x: Value, axes: Value | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
    """The logarithm of the sum over the axes."""
    return O.Log(O.ReduceSum(x, axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes))


@function("ReduceProd", samples=[*SAMPLES, case(np.array([[0.0, 2.0, 0.5], [0.0, 0.0, 3.0]]), I(1))])
def reduce_prod(x: Value, axes: Value | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
    """The product over the axes. It is multiplied up in halves, so that the gradient is right where elements are 0."""
    require(x, "fi")
    over = reduced_axes(x, axes, noop_with_empty_axes)
    for axis in over:
        x = _product_along(x, axis)
    return x if keepdims or not over else O.Squeeze(x, list(over))


def _product_along(x: Value, axis: int) -> Value:
    size = int(x.shape[axis])
    if size == 0:
        return O.Expand(x.like(1), [1 if place == axis else dim for place, dim in enumerate(x.shape)])
    while size > 1:
        half = size // 2
        parts = O.Split(
            x, [half, half, size - 2 * half] if size % 2 else [half, half], axis=axis, n_outputs=2 + size % 2
        )
        x = parts[0] * parts[1]
        x = O.Concat(x, parts[2], axis=axis) if size % 2 else x
        size = half + size % 2
    return x


def _along(axis: Value, x: Value) -> int:
    require(axis, "i")
    return axis_of(axis.known.reshape(()).item(), x.rank)


def _cumulative_type(x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> TensorType:
    require_rank(x, 1)
    _along(axis, x)
    return TensorType(require(x, "fi"), x.shape)


@op(
    "CumSum",
    shape=_cumulative_type,
    samples=[
        case(F(2, 3), np.array(0)),
        case(F(2, 3), np.array(-1), exclusive=1),
        case(F(5), np.array(0), reverse=1),
        case(F(2, 4), np.array(1), exclusive=1, reverse=1),
    ],
)
def cumulative_sum(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """The running sum along the axis, without the element itself if `exclusive`, from the end if `reverse`."""
    at = axis.item()
    ordered = np.flip(x, at) if reverse else x
    total = np.cumsum(ordered, at, x.dtype)
    if exclusive:
        total = np.roll(total, 1, at)
        np.moveaxis(total, at, 0)[:1] = 0
    return np.flip(total, at) if reverse else total


@gradient("CumSum")
def _(g: Value, y: Value, x: Value, axis: Value, *, exclusive: int, reverse: int) -> tuple[Value, None]:
    return O.CumSum(g, axis, exclusive=exclusive, reverse=1 - reverse), None


@function(
    "CumProd",
    samples=[
        case(F(2, 3), np.array(0)),
        case(F(2, 5), np.array(-1), exclusive=1),
        case(np.array([0.5, 0.0, 2.0]), np.array(0), reverse=1),
        case(F(2, 4), np.array(1), exclusive=1, reverse=1),
    ],
)
def cumulative_product(x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """The running product along the axis, without the element itself if `exclusive`, from the end if `reverse`.

    In each of log2(n) rounds, every element is multiplied by the one twice as far away as in the round before.
    """
    require(x, "fi")
    at = _along(axis, x)
    x = _shifted(x, at, 1, reverse) if exclusive else x
    distance = 1
    while distance < int(x.shape[at]):
        x = x * _shifted(x, at, distance, reverse)
        distance *= 2
    return x


def _shifted(x: Value, axis: int, distance: int, back: int) -> Value:
    """Returns x moved along the axis, ones coming in."""
    pads = [0] * (2 * x.rank)
    pads[axis], pads[axis + x.rank] = (-distance, distance) if back else (distance, -distance)
    return O.ConstantPad(x, x.like(1), pads=tuple(pads))
