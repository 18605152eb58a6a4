"""Stops a computation after so many kernels."""

from backwire_server.engine.stopping import Stop


class After(Stop):
    """Is wanted from when it was looked at so many times; counts how often that was."""

    __slots__ = ("looks", "most")

    def __init__(self, most: int) -> None:
        self.looks, self.most = 0, most

    @property
    def wanted(self) -> bool:  # type: ignore[override]
        self.looks += 1
        return self.looks > self.most
