"""Values that are changed in place as long as nobody holds on to them, and copied first when somebody does."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import FlatLayout, Vectors

Array = NDArray[Any]


def owner(array: Array) -> Array:
    """Returns the array that a view was made from, or the array itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Version:
    """The values of one moment, counted by those who hold them. While one does, nothing writes to them.

    Attributes:
        vectors: The values, laid out flat.
        arrays: The same memory, as arrays by name.
        nbytes: The bytes of all vectors.
    """

    __slots__ = ("_holders", "_mutex", "arrays", "nbytes", "vectors")

    def __init__(self, layout: FlatLayout, vectors: Vectors) -> None:
        self.vectors = vectors
        self.arrays: Mapping[str, Array] = layout.views(vectors)
        self.nbytes = sum(vector.nbytes for vector in vectors.values())
        self._holders = 0
        self._mutex = threading.Lock()  # readers let go in threads of their own

    @property
    def holders(self) -> int:
        """How many hold on to this version."""
        return self._holders

    def hold(self) -> None:
        """Keeps the values as they are until `release`."""
        with self._mutex:
            self._holders += 1

    def release(self) -> None:
        """Ends one `hold`."""
        with self._mutex:
            self._holders -= 1

    def detached(self, array: Array) -> Array:
        """Returns the array, copied if it is a view of these values, which a later step would change."""
        base = owner(array)
        return array.copy() if any(base is vector for vector in self.vectors.values()) else array


class Versioned:
    """Flat vectors with a current version. For one thread at a time; only `Version.release` may come from others."""

    def __init__(self, layout: FlatLayout, vectors: Vectors) -> None:
        self.layout = layout
        self.current = Version(layout, vectors)

    @contextmanager
    def writing(self, *, leaving: int = 0) -> Iterator[Version]:
        """Gives a version to write to, which becomes the current one when the block ends without an exception.

        It is the current version itself when nobody holds it, besides `leaving` holders who are about to let go; then
        the block must not fail after its first write. Otherwise it is a copy.
        """
        version = self.current
        if version.holders > leaving:
            copies = {dtype: vector.copy() for dtype, vector in version.vectors.items()}
            version = Version(self.layout, copies)
        yield version
        self.current = version
