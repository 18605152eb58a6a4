"""Named arrays of one moment, for readers that take their time."""

from collections.abc import Iterator, Sequence

from backwire_server.sessions.training.versions import Array, Version


class Snapshot:
    """Arrays that stay as they are until `close`, or until nobody refers to the snapshot any more.

    Attributes:
        step: The step number of the session at that moment.
        contributions: How many contributions it had accumulated.
    """

    def __init__(
        self, arrays: Sequence[tuple[str, Array]], step: int, contributions: int, version: Version | None = None
    ) -> None:
        """Holds the version, if one is given."""
        self.step = step
        self.contributions = contributions
        self._arrays = arrays
        self._version = version
        if version is not None:
            version.hold()

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        return iter(self._arrays)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the arrays; closing again does nothing."""
        version, self._version = self._version, None
        if version is not None:
            version.release()
