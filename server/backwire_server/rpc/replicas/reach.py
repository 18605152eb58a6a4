"""Tells why another server is not reached, once that lasts: one that died is replaced before."""

import logging
import threading
import time

from backwire_server.storage.seldom import Seldom

LASTING_SECONDS = 5.0
"""From how many seconds on without one call that got through the reason is told."""

RARE_SECONDS = 30.0
"""After how many seconds without a call the next one that fails is the first again."""

_LOG = logging.getLogger("backwire.rpc")


class Reach:
    """Whether calls get through to the server at an address. May be used by several threads at once."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._mutex = threading.Lock()
        self._since = self._last = float("-inf")
        self._warnings = Seldom(_LOG)

    def reached(self) -> None:
        """Notes that a call got through."""
        with self._mutex:
            self._last = float("-inf")

    def failed(self, why: str) -> str:
        """Notes that one did not; returns what its client is told besides, where that lasts."""
        now = time.monotonic()
        with self._mutex:
            if now - self._last > RARE_SECONDS:
                self._since = now
            self._last = now
            lasted = now - self._since
        if lasted < LASTING_SECONDS:
            return ""
        self._warnings.warn(
            "calls cannot be passed on to the replica at %s: %s; let the network have replicas reach each other at "
            "--advertise or --listen, have all of them encrypt or none, and give all --peer-ca",
            self._address,
            why,
        )
        return f"; that has been so for {lasted:.0f} s: the log of the replica that was called tells why"
