"""How arrays lie in memory, worked out without touching any: shapes and strides."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import numpy as np

from backwire_server.engine.graph import Array, DType, TensorType

Order = tuple[int, ...]


def outline(dtype: DType, shape: Sequence[int], order: Order | None = None) -> Array:
    """Returns an array with its axes in the given order in memory, the outermost first, but without memory.

    It has the geometry of such an array, not its elements: it must not be read or written.
    """
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype), tuple(shape), strides_of(dtype, shape, order))


def strides_of(dtype: DType, shape: Sequence[int], order: Order | None = None) -> tuple[int, ...]:
    """Returns the strides, in bytes, of a gapless array whose axes lie in the given order, by default in C order."""
    strides, step = [0] * len(shape), dtype.itemsize
    for axis in reversed(order if order is not None else range(len(shape))):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def order_of(array: Array) -> Order | None:
    """Returns the order in which the axes lie in memory, None when that is C order or the array has gaps or repeats."""
    if array.flags.c_contiguous:
        return None
    order = tuple(sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], -array.shape[axis])))
    gapless = strides_of(array.dtype, array.shape, order)
    same = all(a == b or n == 1 for a, b, n in zip(array.strides, gapless, array.shape, strict=True))
    return order if same else None


def room_like(array: Array, dtype: DType, take: Callable[[Sequence[int], DType], Array]) -> Array:
    """Returns room, from `take`, for an array of another dtype whose axes lie in memory in the same order."""
    order = order_of(array) or tuple(range(array.ndim))
    return take([array.shape[axis] for axis in order], dtype).transpose(np.argsort(order))


def same_geometry(a: Array, b: Array) -> bool:
    """Tells whether two arrays lie in memory in the same way; the strides of axes of one place do not matter."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.strides == b.strides or all(
        n == 1 or first == second for n, first, second in zip(a.shape, a.strides, b.strides, strict=True)
    )


def always_view(*_: object) -> bool:
    """Tells that an operator returns a view of whatever it is given."""
    return True


def reshapes_to_view(x: Array, type_: TensorType) -> bool:
    """Tells whether reshaping needs no copy: each group of axes that is merged or split lies without gaps."""
    shape = [int(size) for size in type_.shape]
    if prod(x.shape) == 0:
        return True
    old = [(n, step) for n, step in zip(x.shape, x.strides, strict=True) if n != 1]
    new = [n for n in shape if n != 1]
    start = at = 0
    while start < len(old):
        stop, many = start + 1, old[start][0]
        wanted = 1
        while wanted != many:
            if wanted < many:
                wanted *= new[at]
                at += 1
            else:
                many *= old[stop][0]
                stop += 1
        group = old[start:stop]
        if any(outer != inner * n for (_, outer), (n, inner) in pairwise(group)):
            return False
        start = stop
    return True


def copied_like(array: Array, outline: Array) -> Array:
    """Returns a copy that lies in memory as the outline does."""
    order = order_of(outline) or tuple(range(array.ndim))
    room = np.empty([array.shape[axis] for axis in order], array.dtype).transpose(np.argsort(order))
    np.copyto(room, array)
    return room


def with_strides_of(array: Array, outline: Array) -> Array:
    """Returns the array with the strides of the outline also along axes of one place, by which calls are prepared."""
    same = array.strides == outline.strides
    return array if same else np.lib.stride_tricks.as_strided(array, outline.shape, outline.strides)
