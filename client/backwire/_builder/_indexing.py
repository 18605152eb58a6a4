"""Reads what stands between the brackets of `value[...]` and says which slices, squeezes and gathers it means."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backwire._builder import _shapes
from backwire._builder._shapes import Dim
from backwire._errors import GraphError, ShapeError

_FIRST, _LAST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


@dataclass(slots=True)
class Selection:
    """Slices by axis of the source, then the axes to drop, then an index along an axis, then new axes of the result."""

    slices: dict[int, slice] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    index: Any = None
    index_axis: int = 0
    added: list[int] = field(default_factory=list)


def parse(key: Any, shape: tuple[Dim, ...]) -> Selection:
    """Returns what the key selects from a value of this shape; raises ShapeError or GraphError for what it cannot."""
    items = _spelled_out(key if isinstance(key, tuple) else (key,), len(shape))
    selection = Selection()
    axis, place = 0, 0
    for item in items:
        if item is None:
            selection.added.append(place)
            place += 1
            continue
        if isinstance(item, slice):
            if item != slice(None):
                selection.slices[axis] = _integers(item)
            place += 1
        elif isinstance(item, int | np.integer) and not isinstance(item, bool | np.bool_):
            selection.slices[axis] = _single(int(item), axis, shape)
            selection.dropped.append(axis)
        else:
            _set_index(selection, item, axis)
            place += 1
        axis += 1
    if selection.index is not None and (selection.dropped or selection.added):
        raise GraphError("an index array beside integers or None is ambiguous; index in two steps: x[0][indices]")
    return selection


def sliced(dim: Dim, item: slice) -> Dim:
    """Returns how long the slice of a dimension is."""
    return len(range(*item.indices(dim))) if isinstance(dim, int) else None


def bounds(item: slice) -> tuple[int, int, int]:
    """Returns start, end and step as ONNX's Slice takes them."""
    step = 1 if item.step is None else item.step
    start = (0 if step > 0 else _LAST) if item.start is None else item.start
    end = (_LAST if step > 0 else _FIRST) if item.stop is None else item.stop
    return start, end, step


def _spelled_out(key: tuple[Any, ...], rank: int) -> Iterable[Any]:
    consumed = sum(item is not None and item is not Ellipsis for item in key)
    if consumed > rank:
        raise ShapeError(f"{consumed} indices are too many for a value of rank {rank}; leave out {consumed - rank}")
    ellipses = sum(item is Ellipsis for item in key)
    if ellipses > 1:
        raise GraphError("an index with more than one ... is ambiguous; keep one")
    for item in key if ellipses else (*key, Ellipsis):
        if item is Ellipsis:
            yield from [slice(None)] * (rank - consumed)
        else:
            yield item


def _integers(item: slice) -> slice:
    parts = (item.start, item.stop, item.step)
    if not all(part is None or isinstance(part, int | np.integer) for part in parts):
        raise GraphError(f"{item} is no slice of integers; bounds that Forward computes are not supported here")
    if item.step == 0:
        raise GraphError(f"{item} has step 0; use another step")
    return slice(*(part if part is None else int(part) for part in parts))


def _single(index: int, axis: int, shape: tuple[Dim, ...]) -> slice:
    size = shape[axis]
    if isinstance(size, int) and not -size <= index < size:
        raise ShapeError(f"index {index} is outside axis {axis} of {_shapes.show(shape)}; use {-size} to {size - 1}")
    return slice(index, index + 1 if index != -1 else None)


def _set_index(selection: Selection, item: Any, axis: int) -> None:
    if selection.index is not None:
        raise GraphError("two index arrays in one index are not supported; index in two steps: x[rows][:, columns]")
    selection.index, selection.index_axis = item, axis
