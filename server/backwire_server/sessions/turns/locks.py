"""Locks that are handed over in the order of asking, and whose waiting ends with the call that waits."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backwire_server.sessions.scope import CallScope

POLL_SECONDS = 0.05  # how late a waiter may notice that its caller is gone


class FairLock:
    """A lock that is granted first come, first served. Not reentrant.

    Each session has one, and few wait for one: a deque would take 760 bytes while it is empty.
    """

    __slots__ = ("_held", "_mutex", "_waiting")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: list[threading.Event] = []
        self._held = False

    @contextmanager
    def hold(self, scope: CallScope) -> Iterator[None]:
        """Holds the lock; raises what `scope.check` raises when the call ends before its turn has come."""
        self.acquire(scope)
        try:
            yield
        finally:
            self.release()

    def acquire(self, scope: CallScope) -> None:
        """Takes the lock when its turn has come, as `hold` does. Goes with `release`."""
        with self._mutex:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            while not turn.wait(_patience(scope)):
                scope.check()
        except BaseException:
            self._give_up(turn)
            raise

    def try_acquire(self) -> bool:
        """Takes the lock if nobody has it; tells whether it did. Goes with `release`."""
        with self._mutex:
            if self._held:
                return False
            self._held = True
            return True

    def release(self) -> None:
        """Hands the lock to the one who has waited longest."""
        with self._mutex:
            if self._waiting:
                self._waiting.pop(0).set()
            else:
                self._held = False

    def _give_up(self, turn: threading.Event) -> None:
        with self._mutex:
            granted = turn.is_set()
            if not granted:
                self._waiting.remove(turn)
        if granted:
            self.release()


class Signal:
    """Tells those who wait that something has changed. It takes memory only for those, as FairLock does.

    Attributes:
        count: How often it was told.
    """

    __slots__ = ("_mutex", "_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        self._mutex = threading.Lock()
        self._waiting: list[threading.Event] = []

    def tell(self) -> None:
        """Tells all who wait."""
        with self._mutex:
            self.count += 1
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.set()

    def wait(self, seen: int, scope: CallScope) -> None:
        """Returns once it was told more often than was `seen`; raises what `scope.check` raises meanwhile."""
        told = threading.Event()
        with self._mutex:
            if self.count != seen:
                return
            self._waiting.append(told)
        try:
            while not told.wait(_patience(scope)):
                scope.check()
        finally:
            with self._mutex:
                if told in self._waiting:
                    self._waiting.remove(told)


class KeyedLocks:
    """A fair lock for every key, which exists only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[str, tuple[FairLock, int]] = {}

    @contextmanager
    def hold(self, key: str, scope: CallScope) -> Iterator[None]:
        """Holds the lock of the key, as `FairLock.hold` does."""
        with self._mutex:
            lock, users = self._locks.get(key, (FairLock(), 0))
            self._locks[key] = lock, users + 1
        try:
            with lock.hold(scope):
                yield
        finally:
            with self._mutex:
                lock, users = self._locks.pop(key)
                if users > 1:
                    self._locks[key] = lock, users - 1


def _patience(scope: CallScope) -> float:
    remaining = scope.remaining()
    return POLL_SECONDS if remaining is None else min(POLL_SECONDS, remaining)
