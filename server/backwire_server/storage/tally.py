"""What has been written for the sessions of a process."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backwire_server.storage.silence import Progress

_LOG = logging.getLogger("backwire.storage")

SILENT_SECONDS = 60.0
"""How long failures of journals are not logged after one was: clients repeat their calls meanwhile."""


class Tally:
    """What journals and checkpoints have written since the process began. May be used by several threads at once.

    Attributes:
        records: The records of journals.
        record_bytes: The bytes of these.
        segments: The segments of journals that were begun.
        flushes: How often a journal was flushed to the disk.
        flush_seconds: How long that took in all.
        journal_failures: The writes and flushes of journals that failed.
        checkpoints: The checkpoints.
        checkpoint_bytes: The bytes of these.
        checkpoint_seconds: How long writing them took in all.
        checkpoint_failures: The checkpoints that could not be written.
        power_losses: The sessions that a loss of power was found to have taken, or changes of.
        writing: The writes to journals that go on.
        flushing: The flushes of them.
    """

    def __init__(self) -> None:
        self.records = self.record_bytes = self.segments = 0
        self.flushes, self.flush_seconds = 0, 0.0
        self.journal_failures = 0
        self.checkpoints, self.checkpoint_bytes, self.checkpoint_seconds = 0, 0, 0.0
        self.checkpoint_failures = 0
        self.power_losses = 0
        self.writing, self.flushing = Progress(), Progress()
        self._mutex = threading.Lock()
        self._silent_until = 0.0

    @property
    def silence(self) -> float:
        """For how many seconds the disk has not done what it is to, 0 as long as that is not long; see Progress."""
        return max(self.writing.silence, self.flushing.silence)

    def appended(self, nbytes: int) -> None:
        """Counts a record of a journal."""
        with self._mutex:
            self.records += 1
            self.record_bytes += nbytes

    def began_segment(self) -> None:
        """Counts a segment of a journal."""
        with self._mutex:
            self.segments += 1

    def lost_power(self) -> None:
        """Counts a session that a loss of power took, or changes of."""
        with self._mutex:
            self.power_losses += 1

    def flushed(self, seconds: float) -> None:
        """Counts a flush of a journal that took so long."""
        with self._mutex:
            self.flushes += 1
            self.flush_seconds += seconds

    def journal_failed(self, error: OSError) -> None:
        """Counts a write or a flush of a journal that failed, and logs why, unless another was logged lately."""
        now = time.monotonic()
        with self._mutex:
            self.journal_failures += 1
            if now < self._silent_until:
                return
            self._silent_until = now + SILENT_SECONDS
        _LOG.error("calls that change sessions are refused, since a journal could not be written: %s", error)

    @contextmanager
    def checkpoint(self) -> Iterator[Callable[[int], None]]:
        """Counts the checkpoint that the block writes, or its failure; to be told the bytes once it is on the disk."""
        began = time.perf_counter()

        def written(nbytes: int) -> None:
            with self._mutex:
                self.checkpoints += 1
                self.checkpoint_bytes += nbytes
                self.checkpoint_seconds += time.perf_counter() - began

        try:
            yield written
        except BaseException:
            with self._mutex:
                self.checkpoint_failures += 1
            raise
