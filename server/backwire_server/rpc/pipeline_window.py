"""How much a Pipeline stream holds: it stops reading while that is too much."""

import threading
import time

from backwire_server.rpc.admission import Ticket
from backwire_server.sessions.errors import Cancelled, Overloaded

PATIENCE = 5.0  # seconds that a stream stops reading, while others hold too much, before it refuses a request
_POLL_SECONDS = 0.02


class Window:
    """The bytes of requests that were read and not answered."""

    def __init__(self, ticket: Ticket, limit: int) -> None:
        self._ticket = ticket
        self._limit = limit
        self._held = 0
        self._unanswered = 0
        self._changed = threading.Condition()
        self._closed = False

    def take(self, nbytes: int) -> None:
        """Counts bytes of a request; raises Overloaded when other calls hold too much for too long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._take(nbytes)
                return
            except Overloaded:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def _take(self, nbytes: int) -> None:
        with self._changed:
            if self._closed:  # and the ticket may have been given back
                raise Cancelled("the stream has ended")
            self._ticket.take(nbytes)
            self._held += nbytes

    def begin(self) -> None:
        """Notes that a request was read, and is to be answered."""
        with self._changed:
            self._unanswered += 1
            self._ticket.wait.busy()

    def give(self, nbytes: int) -> None:
        """Ends the count of a request's bytes: it was answered."""
        self._ticket.give(nbytes)
        with self._changed:
            self._held -= nbytes
            self._unanswered -= 1
            if not self._unanswered:
                self._ticket.wait.idle()
            self._changed.notify()

    def wait(self) -> None:
        """Waits until less is held than the limit, nothing but a request half read, or `close` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._limit or not self._unanswered or self._closed)

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify()
