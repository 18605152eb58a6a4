"""Named arrays as views into one contiguous vector per dtype."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Vectors = dict[np.dtype[Any], NDArray[Any]]
"""One contiguous one-dimensional array per dtype."""

DTYPES = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
"""The dtypes that can be trained."""


class Views(dict[str, NDArray[Any]]):
    """Arrays by name that are views into vectors, and so share their memory.

    Attributes:
        vectors: Those that they are views into.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]] = MappingProxyType({}), vectors: Vectors | None = None
    ) -> None:
        """Without arguments there are none."""
        super().__init__(arrays)
        self.vectors = {} if vectors is None else vectors


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an array lies: the elements `span` of the vector of `dtype`, in C order of `shape`."""

    dtype: np.dtype[Any]
    span: slice
    shape: tuple[int, ...]

    def view(self, vector: NDArray[Any]) -> NDArray[Any]:
        """The array as a view into `vector`, which is the vector of this slot's dtype."""
        return vector[self.span].reshape(self.shape)


class FlatLayout:
    """Places named float32 and float64 arrays one after another, without gaps, in one vector per dtype.

    Made from an ordered mapping of name to (dtype, shape); the order within a vector is that of the mapping. Raises
    ValueError for another dtype. Immutable.

    Attributes:
        slots: Where each array lies, by name, in the given order.
        sizes: The number of elements of each vector, by dtype, in the order of first appearance.
    """

    __slots__ = ("sizes", "slots")

    slots: Mapping[str, Slot]
    sizes: Mapping[np.dtype[Any], int]

    def __init__(self, arrays: Mapping[str, tuple[DTypeLike, Sequence[int]]]) -> None:
        slots: dict[str, Slot] = {}
        sizes: dict[np.dtype[Any], int] = {}
        for name, (kind, shape) in arrays.items():
            dtype = np.dtype(kind)
            if dtype not in DTYPES:
                raise ValueError(f"{name} is {dtype}; only float32 and float64 can be trained, so cast or freeze it")
            start = sizes.get(dtype, 0)
            sizes[dtype] = start + math.prod(shape)
            slots[name] = Slot(dtype, slice(start, sizes[dtype]), tuple(shape))
        self.slots = MappingProxyType(slots)
        self.sizes = MappingProxyType(sizes)

    def zeros(self) -> Vectors:
        """New vectors of zeros."""
        return {dtype: np.zeros(size, dtype) for dtype, size in self.sizes.items()}

    def views(self, vectors: Vectors) -> Views:
        """The arrays by name, as reshaped views: writing to a view writes to its vector, and the other way round."""
        return Views({name: slot.view(vectors[slot.dtype]) for name, slot in self.slots.items()}, vectors)

    def pack(self, arrays: Mapping[str, NDArray[Any]]) -> Vectors:
        """New vectors that hold copies of `arrays`.

        Raises ValueError when a name is missing or unknown, or a dtype or shape differs from the layout's.
        """
        if differing := arrays.keys() ^ self.slots.keys():
            raise ValueError(f"arrays and layout differ in {sorted(differing)}; give exactly the layout's names")
        vectors = {dtype: np.empty(size, dtype) for dtype, size in self.sizes.items()}
        for name, slot in self.slots.items():
            array = arrays[name]
            if array.dtype != slot.dtype or array.shape != slot.shape:
                raise ValueError(
                    f"{name} is {array.dtype}{list(array.shape)}; the layout needs {slot.dtype}{list(slot.shape)}"
                )
            slot.view(vectors[slot.dtype])[...] = array
        return vectors
