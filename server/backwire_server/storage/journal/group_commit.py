"""Flushes what several threads wrote at once: one of them does it for all."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backwire_server.sessions.errors import StorageFailed
from backwire_server.sessions.scope import CallScope
from backwire_server.storage.disk import failed
from backwire_server.storage.tally import Tally

CHECK_SECONDS = 0.05
"""How often those who wait for a flush see whether their own callers still do."""


class GroupCommit:
    """Knows up to which number records were written, and up to which they were flushed.

    May be used by several threads at once. After a flush has failed nobody can tell what is on the disk: then it is
    broken for good.
    """

    def __init__(self, tally: Tally) -> None:
        """Has flushes counted."""
        self._tally = tally
        self._turn = threading.Condition()
        self._written = 0
        self._flushed = 0
        self._bytes = self._flushed_bytes = 0
        self._flushing = False
        self._broken = ""

    @property
    def broken(self) -> bool:
        """Whether it is."""
        return bool(self._broken)

    def check(self) -> None:
        """Raises StorageFailed if it is broken."""
        if self._broken:
            raise StorageFailed(self._broken, retry_after=1.0)

    def fail(self, error: StorageFailed) -> None:
        """Breaks it, unless it is already."""
        with self._turn:
            self._broken = self._broken or str(error)
            self._turn.notify_all()

    def wrote(self, number: int, nbytes: int = 0) -> None:
        """Notes that the records up to this number were written, the last of so many bytes."""
        self._bytes += nbytes
        self._written = number

    def wait(self, number: int, flush: Callable[[], None], scope: CallScope) -> None:
        """Returns when the record of this number was flushed, by this thread or another.

        Raises StorageFailed when that failed, and what `scope.check` raises while another thread flushes.
        """
        while True:
            with self._turn:
                self.check()
                if self._flushed >= number:
                    return
                if self._flushing:
                    self._turn.wait(CHECK_SECONDS)
                    mine = False
                else:
                    mine = self._flushing = True
            if mine:
                self._flush(flush)
            else:
                scope.check()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Gives a time in which no thread flushes."""
        with self._turn:
            while self._flushing:
                self._turn.wait()
            self._flushing = True
        try:
            yield
        finally:
            self._done()

    def flush_now(self, flush: Callable[[], None], besides: int = 0) -> None:
        """Flushes all that was written, and so many bytes besides; for who is `alone`, or whom nobody waits for yet."""
        target, nbytes, began = self._written, self._bytes, time.perf_counter()
        self._tally.flushing.begin(nbytes - self._flushed_bytes + besides)
        try:
            flush()
        except OSError as error:
            self._tally.journal_failed(error)
            broken = failed("the journal could not be flushed, and what is on the disk of it is not known", error)
            self.fail(broken)
            raise broken from error
        finally:
            self._tally.flushing.end()
        self._flushed, self._flushed_bytes = max(self._flushed, target), nbytes
        self._tally.flushed(time.perf_counter() - began)

    def _flush(self, flush: Callable[[], None]) -> None:
        try:
            self.flush_now(flush)
        finally:
            self._done()

    def _done(self) -> None:
        with self._turn:
            self._flushing = False
            self._turn.notify_all()
