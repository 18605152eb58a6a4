"""Makes sessions again after a start whose journal has to be replayed, one after another."""

import logging
import threading
from collections.abc import Callable, Sequence

from backwire_server.sessions.errors import SessionError

_LOG = logging.getLogger("backwire.sessions")


class Recoveries:
    """The sessions whose journal is still to be replayed. May be used by several threads at once."""

    def __init__(self, session_ids: Sequence[str], wake: Callable[[str], None]) -> None:
        """Makes the sessions of these ids again by `wake`, in a thread from `start` on."""
        self._session_ids = session_ids
        self._wake = wake
        self._mutex = threading.Lock()
        self._remaining = len(session_ids)
        self._when_done: Callable[[], None] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backwire-recovery", daemon=True)

    def start(self) -> None:
        """Begins, if there are any."""
        if self._session_ids:
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after the session that it is making."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def remaining(self) -> int:
        """Of how many sessions the journal is still to be replayed."""
        return self._remaining

    def when_done(self, act: Callable[[], None]) -> None:
        """Calls `act` once none remains: at once, or in the thread."""
        with self._mutex:
            if self._remaining:
                self._when_done = act
                return
        act()

    def _run(self) -> None:
        """Makes one after another; what cannot be made again is logged, and remains no more."""
        for session_id in self._session_ids:
            if self._stopping.is_set():
                return
            try:
                self._wake(session_id)
            except SessionError as error:
                _LOG.error("session %s could not be recovered: %s", session_id, error)
            except Exception:
                _LOG.exception("session %s could not be recovered", session_id)
            self._one_less()
            count = len(self._session_ids)
            _LOG.info("recovered %d of %d sessions", count - self._remaining, count)

    def _one_less(self) -> None:
        with self._mutex:
            self._remaining -= 1
            act = None if self._remaining else self._when_done
        if act is not None:
            act()
