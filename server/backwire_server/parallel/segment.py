"""Memory that several processes have in common, without a name that could outlive them."""

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from backwire_server.engine.graph import Array
from backwire_server.engine.memory import ALIGNMENT
from backwire_server.optim import FlatLayout, Vectors

Kind = tuple[np.dtype[Any], tuple[int, ...]]
"""The dtype and the shape of an array."""

_NUMBERS = count(1)

LIVE: WeakValueDictionary[int, "Segment"] = WeakValueDictionary()
"""The segments of this process by their numbers."""


class Segment:
    """Bytes, zero at first, that another process maps when it is given the descriptor.

    They are freed when no process maps them any more, also when all are killed. Arrays in them keep them mapped.

    Attributes:
        number: What tells it from all others of the process that made it.
        nbytes: How many bytes it has.
        descriptor: What to give to another process.
        edition: How often its content was about to change, as far as whoever writes to it says so.
    """

    def __init__(self, nbytes: int, number: int | None = None, descriptor: int | None = None) -> None:
        """Makes new memory, or maps that of a number and a descriptor, which it takes over; raises OSError."""
        self.number = next(_NUMBERS) if number is None else number
        self.nbytes = max(nbytes, 1)
        self.edition = 0
        self.descriptor = os.memfd_create("backwire", os.MFD_CLOEXEC) if descriptor is None else descriptor
        try:
            if descriptor is None:
                os.ftruncate(self.descriptor, self.nbytes)
            self._map = mmap.mmap(self.descriptor, self.nbytes)
        except BaseException:
            os.close(self.descriptor)
            raise
        LIVE[self.number] = self

    def __del__(self) -> None:
        if hasattr(self, "_map"):
            os.close(self.descriptor)

    def content(self, nbytes: int | None = None) -> memoryview:
        """Returns the first so many bytes, or all, which can be written to."""
        return memoryview(self._map)[: self.nbytes if nbytes is None else nbytes]

    def arrays(self, kinds: Mapping[str, Kind], start: int = 0) -> dict[str, Array]:
        """Returns arrays by name that lie one after another from an offset on, as `packed_bytes` has it."""
        return unpacked(kinds, self._map, start)

    def vectors(self, layout: FlatLayout) -> Vectors:
        """Returns the vectors of a layout, which lie one after another from the beginning on."""
        found = self.arrays(vector_kinds(layout))
        return {dtype: found[dtype.name] for dtype in layout.sizes}


def vector_kinds(layout: FlatLayout) -> dict[str, Kind]:
    """Returns the kind of each vector of a layout by the name of its dtype."""
    return {dtype.name: (dtype, (size,)) for dtype, size in layout.sizes.items()}


def packed_bytes(kinds: Mapping[str, Kind]) -> int:
    """Returns the bytes of arrays one after another, each aligned."""
    return [*_offsets(kinds)][-1]


def packed(arrays: Mapping[str, Array]) -> memoryview:
    """Returns the bytes of arrays one after another, each aligned, as `packed_bytes` has it."""
    kinds: dict[str, Kind] = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    room = np.zeros(packed_bytes(kinds), np.uint8)
    for name, array in unpacked(kinds, room).items():
        np.copyto(array, arrays[name])
    return room.data


def unpacked(kinds: Mapping[str, Kind], room: Any, start: int = 0) -> dict[str, Array]:
    """Returns the arrays by name that lie one after another in bytes from an offset on."""
    offsets = zip(kinds, _offsets(kinds), strict=False)
    return {name: _array(room, kinds[name], start + offset) for name, offset in offsets}


def _array(room: Any, kind: Kind, offset: int) -> Array:
    """Returns the array that begins at an offset, in C order."""
    dtype, shape = kind
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.frombuffer(room, np.uint8, math.prod(shape) * dtype.itemsize, offset).view(dtype).reshape(shape)


def _offsets(kinds: Mapping[str, Kind]) -> Iterator[int]:
    """Yields where each array begins, and then where the last one ends."""
    start = 0
    for dtype, shape in kinds.values():
        yield start
        start += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    yield start
