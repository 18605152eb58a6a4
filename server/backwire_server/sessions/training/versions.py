"""Values that are changed in place as long as nobody holds on to them, and copied first when somebody does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import FlatLayout, OptimizerState, Vectors, Views, copy_state
from backwire_server.parallel.segment import Segment, packed_bytes, vector_kinds

Array = NDArray[Any]

_RELEASED = threading.Condition(threading.Lock())
"""Told when readers let go, in threads of their own; one for all values, since each step makes new ones."""


def owner(array: Array) -> Array:
    """Returns the array that a view was made from, or the array itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Shared:
    """Values of one moment, counted by those who hold them. While one does, nothing writes to them."""

    __slots__ = ("_brief", "_co_owners", "_holders", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._holders = 0
        self._brief = 0
        self._co_owners = 0

    @property
    def holders(self) -> int:
        """How many hold on to these values."""
        return self._holders

    def hold(self, *, briefly: bool = False) -> None:
        """Keeps the values as they are until `release`. Who holds them briefly is waited for rather than copied for."""
        with _RELEASED:
            self._holders += 1
            self._brief += briefly

    def release(self, *, briefly: bool = False) -> None:
        """Ends one `hold`, of the same kind."""
        with _RELEASED:
            self._holders -= 1
            self._brief -= briefly
            _RELEASED.notify_all()

    def share(self) -> None:
        """Adds another owner, for whom these are the current values, too."""
        with _RELEASED:
            self._holders += 1
            self._co_owners += 1

    def leave(self) -> None:
        """Takes an owner away, unless it is the only one."""
        with _RELEASED:
            if self._co_owners:
                self._holders -= 1
                self._co_owners -= 1

    def settle(self) -> None:
        """Waits for those who hold the values briefly."""
        with _RELEASED:
            _RELEASED.wait_for(lambda: not self._brief)


class Version(Shared):
    """Flat vectors of one moment.

    Attributes:
        nbytes: The bytes of all vectors.
        elsewhere: The same values on a device, for whoever computes there; None where they are not.
    """

    __slots__ = ("_arrays", "_vectors", "elsewhere", "layout")

    def __init__(self, layout: FlatLayout, vectors: Vectors | Callable[[], Vectors], elsewhere: Any = None) -> None:
        """Takes the vectors, or what fetches them once they are looked at."""
        super().__init__(sum(size * dtype.itemsize for dtype, size in layout.sizes.items()))
        self.layout = layout
        self.elsewhere = elsewhere
        self._vectors = vectors
        self._arrays: Views | None = None

    @property
    def vectors(self) -> Vectors:
        """The values, laid out flat."""
        vectors = self._vectors
        if callable(vectors):  # a branch may look at the same moment; then both fetch them
            self._vectors = vectors = vectors()
        return vectors

    @property
    def arrays(self) -> Views:
        """The same memory, as arrays by name."""
        if self._arrays is None:
            self._arrays = self.layout.views(self.vectors)
        return self._arrays

    def own(self) -> None:
        """Has the values here alone, since they are about to be written."""
        self._vectors, self.elsewhere = self.vectors, None

    def copy(self) -> "Version":
        """Returns the same values in memory of their own, which nobody holds."""
        return Version(self.layout, {dtype: vector.copy() for dtype, vector in self.vectors.items()})

    def shared(self) -> "SharedVersion":
        """Returns the same values in memory that helper processes can read, which nobody holds; raises OSError."""
        segment = Segment(packed_bytes(vector_kinds(self.layout)))
        vectors = segment.vectors(self.layout)
        for dtype, vector in vectors.items():
            np.copyto(vector, self.vectors[dtype])
        return SharedVersion(self.layout, vectors, segment)

    def detached(self, array: Array) -> Array:
        """Returns the array, copied if it is a view of these values, which a later step would change."""
        if callable(self._vectors):
            return array
        base = owner(array)
        return array.copy() if any(base is vector for vector in self._vectors.values()) else array


class SharedVersion(Version):
    """Flat vectors that lie in a segment, and so do their copies."""

    __slots__ = ("segment",)

    def __init__(self, layout: FlatLayout, vectors: Vectors, segment: Segment) -> None:
        super().__init__(layout, vectors)
        self.segment = segment

    def own(self) -> None:
        """As that of a Version; other nodes have an older edition then."""
        super().own()
        self.segment.edition += 1

    def copy(self) -> "SharedVersion":
        """Returns the same values in a segment of their own, which nobody holds."""
        return self.shared()


class MemoryVersion(Shared):
    """What an optimizer remembers at one moment.

    Attributes:
        elsewhere: The same values on a device, for whoever computes there; None where they are not.
    """

    __slots__ = ("_state", "elsewhere")

    def __init__(
        self, state: OptimizerState | Callable[[], OptimizerState], nbytes: int, elsewhere: Any = None
    ) -> None:
        """Takes the state, or what fetches it once it is looked at."""
        super().__init__(nbytes)
        self.elsewhere = elsewhere
        self._state = state

    @classmethod
    def of(cls, state: OptimizerState) -> "MemoryVersion":
        """Returns what an optimizer made."""
        return cls(state, sum(vector.nbytes for vectors in state.values() for vector in vectors.values()))

    @property
    def state(self) -> OptimizerState:
        """What is remembered, as the optimizer has it."""
        state = self._state
        if callable(state):  # see `Version.vectors`
            self._state = state = state()
        return state

    def own(self) -> None:
        """Has the values here alone, since they are about to be written."""
        assert self.state is not None
        self.elsewhere = None

    def copy(self) -> "MemoryVersion":
        """Returns the same values in memory of their own, which nobody holds."""
        return MemoryVersion(copy_state(self.state), self.nbytes)


V = TypeVar("V", Version, MemoryVersion)


class Versioned(Generic[V]):
    """Values with a current version. For one thread at a time; only `release` and `leave` may come from others."""

    def __init__(self, current: V) -> None:
        self.current: V = current

    def replace(self, version: V) -> None:
        """Makes a version the current one; those who hold the one before keep it."""
        self.current.leave()
        self.current = version

    @contextmanager
    def writing(self, *, leaving: int = 0) -> Iterator[V]:
        """Gives a version to write to, which becomes the current one when the block ends without an exception.

        It is the current version itself when nobody holds it, besides `leaving` holders who are about to let go; then
        the block must not fail after its first write. Otherwise it is a copy.
        """
        version = self.current
        version.settle()
        if version.holders > leaving:
            version = version.copy()
        version.own()
        yield version
        if version is not self.current:
            self.replace(version)
