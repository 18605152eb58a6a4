"""Servers that give signs of life on one directory, by a time that passes when a test says so."""

from collections.abc import Callable

from backwire_server.storage.sharing.membership import Membership

Enlist = Callable[[str], Membership]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now
