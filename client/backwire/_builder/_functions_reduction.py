"""Sums, means and greatest elements along axes, named as in NumPy."""

from collections.abc import Sequence

import numpy as np

from backwire._arrays import BOOL
from backwire._builder import _shapes
from backwire._builder._shapes import Shape
from backwire._builder._value import (
    Value,
    apply,
    integers,
    require_float,
    require_value,
)
from backwire._errors import DTypeError, GraphError


def sum(x: Value, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:  # noqa: A001
    """Returns the sum over the axes, by default over all of them; `keepdims` leaves them with size 1.

    Example:
        >>> bw.sum(bw.input("x", ("batch", 3)), axis=1)
        <ReduceSum: float32[batch]>
    """
    return _reduction("ReduceSum", x, axis, keepdims)


def mean(x: Value, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:
    """Returns the mean over the axes, by default over all of them; `keepdims` leaves them with size 1.

    Example:
        >>> bw.mean(bw.input("x", ("batch", 3)), axis=0, keepdims=True)
        <ReduceMean: float32[1, 3]>
    """
    require_float("ReduceMean", x)
    return _reduction("ReduceMean", x, axis, keepdims)


def max(x: Value, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:  # noqa: A001
    """Returns the greatest element along the axes, by default of all; `keepdims` leaves them with size 1.

    Example:
        >>> bw.max(bw.input("x", ("batch", 3)), axis=-1)
        <ReduceMax: float32[batch]>
    """
    return _reduction("ReduceMax", x, axis, keepdims)


def _reduction(op: str, x: Value, axis: int | Sequence[int] | None, keepdims: bool) -> Value:
    require_value(op, x)
    if x.dtype == BOOL:
        raise DTypeError(f"{op}: {x!r} is bool; convert it with bw.cast(value, 'float32')")
    shape: Shape
    if axis is None:
        shape = () if not keepdims else None if x.shape is None else (1,) * len(x.shape)
        return apply(op, [x], x.dtype, shape, attributes={"keepdims": int(keepdims)})
    axes = [int(axis)] if isinstance(axis, int | np.integer) else [int(item) for item in axis]
    if not axes:
        raise GraphError(f"{op}: an empty list of axes reduces nothing; leave axis out to reduce all")
    shape = None
    if x.shape is not None:
        axes = list(_shapes.axes_of(f"{op} of {x.label}", axes, len(x.shape)))
        shape = _shapes.reduced(x.shape, axes, keepdims)
    return apply(op, [x, integers(axes)], x.dtype, shape, attributes={"keepdims": int(keepdims)})
