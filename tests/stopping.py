"""Stops a computation after so many kernels."""

from backwire_server.engine.stopping import Stopped
from backwire_server.sessions.scope import CallStop


class After(CallStop):
    """Is wanted from when it was looked at so many times; counts how often that was."""

    __slots__ = ("looks", "most")

    def __init__(self, most: int) -> None:
        self.looks, self.most = 0, most
        self.turn, self.charge = None, lambda _: None

    @property
    def wanted(self) -> bool:  # type: ignore[override]
        self.looks += 1
        return self.looks > self.most

    def heed(self) -> None:
        raise Stopped
