"""Threads that share work on long vectors, on the processors of helpers that have nothing to do meanwhile."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass

from backwire_server.optim.sharing import Task

LEAST = 2 << 20
"""Work on fewer elements is done about as soon by one thread: others have to wake, and take turns with it in Python."""


@dataclass(frozen=True, slots=True)
class Threads:
    """The thread that asks, and others of a pool as far as they are free.

    Attributes:
        pool: Where the others are.
        count: How many work at the same time at most, the one that asks included.
    """

    pool: Executor
    count: int

    def share(self, tasks: Sequence[Task]) -> None:
        """Does each task once and returns when all are done; raises what one of them raises, after the others end."""
        waiting = deque(tasks)
        others = self._woken(waiting)
        try:
            _work(waiting, 0)
        finally:
            waiting.clear()
            begun = [other for other in others if not other.cancel()]
            failures = [failure for other in begun if (failure := other.exception()) is not None]
        if failures:
            raise failures[0]

    def _woken(self, waiting: deque[Task]) -> list[Future[None]]:
        others: list[Future[None]] = []
        with suppress(RuntimeError, MemoryError):  # of a pool that is closed, or has no room for a thread
            for hand in range(1, self.count):
                others.append(Future())  # a pool without room for a thread keeps what it refuses, and may yet do it
                self.pool.submit(_help, others[-1], waiting, hand)
        return others


def _help(own: Future[None], waiting: deque[Task], hand: int) -> None:
    """Works with the others, unless that was cancelled."""
    if not own.set_running_or_notify_cancel():
        return
    try:
        _work(waiting, hand)
    except BaseException as error:  # for the thread that asked
        own.set_exception(error)
    else:
        own.set_result(None)


def _work(waiting: deque[Task], hand: int) -> None:
    """Does what nobody has begun, until there is nothing left."""
    while True:
        try:
            task = waiting.popleft()
        except IndexError:
            return
        task(hand)
