"""How much the server takes on at a time."""

import threading

from backwire_server.config import Capacity
from backwire_server.sessions.errors import Overloaded, ShuttingDown

RETRY_SECONDS = 0.25


class Ticket:
    """A place among the calls in progress."""

    def __init__(self, admission: "Admission", streaming: bool) -> None:
        self.streaming = streaming
        self.request_bytes = 0
        self._admission = admission

    def take(self, nbytes: int) -> None:
        """Adds bytes of the request; raises Overloaded when calls in progress hold too many already."""
        self._admission.take(self, nbytes)

    def finish(self) -> None:
        """Notes that the call is over for the client too: its answer was sent, or it is gone. To be called once."""
        self._admission.finish()

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.leave(self)


class Admission:
    """Counts calls in progress and their requests, and refuses what is too much. May be used by several threads.

    Nothing ever waits here, so calls cannot block each other.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._in_progress = {False: 0, True: 0}
        self._request_bytes = 0
        self._unfinished = 0
        self._draining = False

    def enter(self, *, streaming: bool) -> Ticket:
        """Returns a place for a call, to be used in a `with`; raises Overloaded, or ShuttingDown after `drain`."""
        limit, quota = self._limit(streaming)
        with self._changed:
            if self._draining:
                raise ShuttingDown("the server is shutting down; call another, or again later", retry_after=1.0)
            if self._in_progress[streaming] >= limit:
                raise _overloaded(f"{limit:,} calls of this kind are in progress, which is the limit", quota)
            self._in_progress[streaming] += 1
            self._unfinished += 1
        return Ticket(self, streaming)

    def take(self, ticket: Ticket, nbytes: int) -> None:
        """As `Ticket.take`. A call that is alone may have all it wants: messages have a limit of their own."""
        with self._changed:
            others = self._request_bytes - ticket.request_bytes
            if others and self._request_bytes + nbytes > self._capacity.max_request_bytes:
                limit = f"{self._capacity.max_request_bytes:,}"
                raise _overloaded(f"the requests in progress hold the limit of {limit} bytes", "max_request_bytes")
            ticket.request_bytes += nbytes
            self._request_bytes += nbytes

    def leave(self, ticket: Ticket) -> None:
        """Gives the place back: the answer is ready, so that the client may call again as soon as it has it."""
        with self._changed:
            self._in_progress[ticket.streaming] -= 1
            self._request_bytes -= ticket.request_bytes

    def finish(self) -> None:
        """As `Ticket.finish`."""
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()

    def drain(self, timeout: float) -> bool:
        """Refuses new calls from now on; waits until those in progress are finished, and tells whether all are."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not self._unfinished, timeout)

    def _limit(self, streaming: bool) -> tuple[int, str]:
        if streaming:
            return self._capacity.max_concurrent_streams, "max_concurrent_streams"
        return self._capacity.max_concurrent_calls, "max_concurrent_calls"


def _overloaded(message: str, quota: str) -> Overloaded:
    return Overloaded(f"{message}; call again later", retry_after=RETRY_SECONDS, quota=quota)
