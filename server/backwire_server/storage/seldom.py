"""Warnings of which many may come: one is logged from time to time, and tells how many there were besides."""

import logging
import threading
import time

_LOG = logging.getLogger("backwire.storage")

REST_SECONDS = 60.0


class Seldom:
    """Logs a warning at once, and the next one REST_SECONDS later at the earliest. May be used by several threads."""

    def __init__(self, log: logging.Logger = _LOG) -> None:
        self._log = log
        self._mutex = threading.Lock()
        self._due = float("-inf")
        self._kept = 0

    def warn(self, message: str, *arguments: object) -> None:
        """Logs a warning as `logging` does, with how many were not since the last one; or counts it for the next."""
        now = time.monotonic()
        with self._mutex:
            if now < self._due:
                self._kept += 1
                return
            kept, self._kept, self._due = self._kept, 0, now + REST_SECONDS
        besides = f" (and {kept:,} others since the last such line)" if kept else ""
        self._log.warning(f"{message}%s", *arguments, besides)
