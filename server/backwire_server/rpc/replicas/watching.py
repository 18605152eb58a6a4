"""Ends calls that were passed on by gRPC to a server that lives no more: one that vanished breaks no connection."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

LOOK_SECONDS = 0.5
"""How often it is looked whether the servers live that have calls."""

Cancel = Callable[[], object]


class Watch:
    """A thread that looks at the servers that have calls, until `close`. May be used by several threads at once."""

    def __init__(self, lives: Callable[[str], bool]) -> None:
        """`lives` tells whether a server lives at an address; where it raises OSError, that is not known."""
        self._lives = lives
        self._mutex = threading.Lock()
        self._calls: dict[int, tuple[str, Cancel]] = {}
        self._numbers = count()
        self._closed = threading.Event()
        threading.Thread(target=self._look_on, name="backwire-watch", daemon=True).start()

    @contextmanager
    def over(self, address: str, cancel: Cancel) -> Iterator[None]:
        """Has a call to an address be cancelled when no server lives there, as long as the context lasts."""
        number = next(self._numbers)
        with self._mutex:
            self._calls[number] = address, cancel
        try:
            yield
        finally:
            with self._mutex:
                del self._calls[number]

    def close(self) -> None:
        """Ends the thread, soon."""
        self._closed.set()

    def _look_on(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            with self._mutex:
                calls = list(self._calls.values())
            gone = {address for address in {address for address, _ in calls} if self._is_gone(address)}
            for address, cancel in calls:
                if address in gone:
                    cancel()

    def _is_gone(self, address: str) -> bool:
        try:
            return not self._lives(address)
        except OSError:
            return False
