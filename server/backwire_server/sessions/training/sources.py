"""The parameters that batches in parts are computed with: those of now, or those that a pass was made with."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from backwire_server.parallel.segment import Segment
from backwire_server.sessions.errors import OutOfMemory
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.versions import Array, SharedVersion, Version

Reserve = Callable[[int], None]
T = TypeVar("T")


class Source(Protocol):
    """Where a batch finds its parameters."""

    @property
    def arrays(self) -> Mapping[str, Array]:
        """All parameters by name."""

    @property
    def frozen(self) -> Mapping[str, Array]:
        """The frozen ones."""

    def segment(self, reserve: Reserve) -> Segment:
        """Returns where helper processes can read the others; raises OutOfMemory."""


class Current:
    """Those of now."""

    def __init__(self, store: ParameterStore) -> None:
        self._store = store

    @property
    def arrays(self) -> Mapping[str, Array]:
        """All parameters by name."""
        return self._store.arrays

    @property
    def frozen(self) -> Mapping[str, Array]:
        """The frozen ones."""
        return self._store.frozen

    def segment(self, reserve: Reserve) -> Segment:
        """Returns where helpers can read them, where they lie from now on."""
        if not self._store.is_shared:
            reserve(self._store.current.nbytes)
        return _given(self._store.share, self._store.current.nbytes)


class Kept:
    """Those that a pass was made with, of a version that it holds."""

    def __init__(self, arrays: Mapping[str, Array], version: Version) -> None:
        self.arrays = arrays
        self.frozen = {name: array for name, array in arrays.items() if name not in version.layout.slots}
        self._version = version

    def segment(self, reserve: Reserve) -> Segment:
        """Returns where helpers can read them: a copy where they lay elsewhere when the pass was made."""
        if not isinstance(self._version, SharedVersion):
            reserve(self._version.nbytes)
            self._version = _given(self._version.shared, self._version.nbytes)
        return self._version.segment


def new_segment(nbytes: int, reserve: Reserve) -> Segment:
    """Returns new memory that helpers can map; raises OutOfMemory."""
    reserve(nbytes)
    return _given(lambda: Segment(nbytes), nbytes)


def _given(make: Callable[[], T], nbytes: int) -> T:
    try:
        return make()
    except OSError as error:
        raise OutOfMemory(
            f"the system gives no {nbytes:,} bytes to share with other processes: {error}; call again, or use a "
            "smaller data_parallel"
        ) from error
