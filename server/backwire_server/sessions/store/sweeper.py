"""Drops from time to time what nobody uses."""

import logging
import threading

from backwire_server.sessions.store.awake import AwakeSessions
from backwire_server.sessions.store.register import Register

SWEEP_SECONDS = 5.0

LONG_HISTORIES = 1_000
"""How many sessions that are on disk alone keep more than the last few steps of their history: 25 KB each."""

_LOG = logging.getLogger("backwire.sessions")


class Sweeper:
    """Sweeps the sessions of a server in a thread of its own, every SWEEP_SECONDS from `start` to `stop`."""

    def __init__(self, register: Register, awake: AwakeSessions) -> None:
        self._register = register
        self._awake = awake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backwire-sweeper", daemon=True)

    def start(self) -> None:
        """Begins to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after the sweep that is in progress."""
        self._stopping.set()
        self._thread.join()

    def sweep(self) -> None:
        """Drops passes that are too old, sessions that were idle for too long, and most of histories that are so."""
        sessions = self._register.of()
        ended = [each.session_id for each in sessions if each.awake and each.sweep()]
        self._register.forget(*ended)
        self._awake.prune()
        asleep = [each for each in sessions if each.history.long and not each.awake]
        for session in sorted(asleep, key=lambda each: each.idle_since)[:-LONG_HISTORIES]:
            session.shorten_history()

    def _run(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:
                _LOG.exception("a sweep failed; the next one may not")
