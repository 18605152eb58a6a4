"""Packing: several arrays as one vector, and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backwire._arrays import Array, DType
from backwire._errors import ShapeError, UnknownNameError

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Packing:
    """The element types and shapes of arrays by name, in the order in which a vector holds them."""

    types: Mapping[str, tuple[DType, tuple[int, ...]]]

    @property
    def size(self) -> int:
        """How many elements the vector has."""
        return sum(math.prod(shape) for _, shape in self.types.values())

    def pack(self, values: Mapping[str, ArrayLike]) -> Vector:
        """Returns the elements of all arrays, each in C order, in float64; raises UnknownNameError or ShapeError."""
        if values.keys() != self.types.keys():
            wanted = ", ".join(map(repr, self.types))
            raise UnknownNameError(f"{sorted(values)} are not the variables; give exactly {wanted}")
        arrays = {name: np.asarray(values[name], np.float64) for name in self.types}
        for name, (_, shape) in self.types.items():
            if arrays[name].shape != shape:
                raise ShapeError(f"{name!r} has shape {list(arrays[name].shape)}, not {list(shape)}; reshape it")
        return np.concatenate([each.ravel() for each in arrays.values()])

    def unpack(self, vector: ArrayLike) -> dict[str, Array]:
        """Returns the arrays, as copies of their element types; raises ShapeError for a vector of another size."""
        flat = np.asarray(vector, np.float64)
        if flat.shape != (self.size,):
            raise ShapeError(f"the variables have {self.size} elements, so give [{self.size}], not {list(flat.shape)}")
        found, at = {}, 0
        for name, (dtype, shape) in self.types.items():
            size = math.prod(shape)
            with np.errstate(over="ignore"):  # a line search that goes too far wants infinity back, no error
                found[name] = flat[at : at + size].reshape(shape).astype(dtype)
            at += size
        return found
