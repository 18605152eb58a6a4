"""How much the server takes on at a time."""

import threading
from collections.abc import Callable

from backwire_server.config import Capacity
from backwire_server.sessions.errors import Overloaded, ShuttingDown

RETRY_SECONDS = 0.25
CALLS, STREAMS, PIPELINES = "max_concurrent_calls", "max_concurrent_streams", "max_concurrent_pipelines"


class Ticket:
    """A place among the calls in progress; `quota` names the limit that it counts for.

    Attributes:
        request_bytes: The bytes of its requests that it holds.
        total_bytes: The bytes of its requests in all.
    """

    __slots__ = ("_admission", "quota", "request_bytes", "total_bytes")

    def __init__(self, admission: "Admission", quota: str) -> None:
        self.quota = quota
        self.request_bytes = 0
        self.total_bytes = 0
        self._admission = admission

    def take(self, nbytes: int) -> None:
        """Adds bytes of the request; raises Overloaded when calls in progress hold too many already."""
        self._admission.take(self, nbytes)

    def give(self, nbytes: int) -> None:
        """Takes back bytes of requests that were answered, while the call goes on."""
        self._admission.give(self, nbytes)

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Has `callback` called, from another thread, if the server begins to shut down before the call is left."""
        self._admission.on_drain(self, callback)

    def finish(self) -> None:
        """Notes that the call is over for the client too: its answer was sent, or it is gone. To be called once."""
        self._admission.finish()

    def leave(self) -> None:
        """Gives the place back, as the end of a `with` does."""
        self._admission.leave(self)

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Admission:
    """Counts calls in progress and their requests, and refuses what is too much. May be used by several threads.

    Nothing ever waits here, so calls cannot block each other.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._limits: dict[str, int] = {quota: getattr(capacity, quota) for quota in (CALLS, STREAMS, PIPELINES)}
        self._max_request_bytes = capacity.max_request_bytes
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._in_progress = {CALLS: 0, STREAMS: 0, PIPELINES: 0}
        self._drains: dict[Ticket, Callable[[], None]] = {}
        self._request_bytes = 0
        self._unfinished = 0
        self._draining = False

    def enter(self, quota: str = CALLS) -> Ticket:
        """Returns a place for a call, to be used in a `with`; raises Overloaded, or ShuttingDown after `drain`.

        `quota` is the limit of Capacity that it counts for: CALLS, STREAMS or PIPELINES.
        """
        with self._lock:
            if self._draining:
                raise ShuttingDown("the server is shutting down; call another, or again later", retry_after=1.0)
            if self._in_progress[quota] >= (limit := self._limits[quota]):
                raise _overloaded(f"{limit:,} calls of this kind are in progress, which is the limit", quota)
            self._in_progress[quota] += 1
            self._unfinished += 1
        return Ticket(self, quota)

    def take(self, ticket: Ticket, nbytes: int) -> None:
        """As `Ticket.take`. A call that is alone may have all it wants: messages have a limit of their own."""
        with self._lock:
            others = self._request_bytes - ticket.request_bytes
            if others and self._request_bytes + nbytes > self._max_request_bytes:
                limit = f"{self._max_request_bytes:,}"
                raise _overloaded(f"the requests in progress hold the limit of {limit} bytes", "max_request_bytes")
            ticket.request_bytes += nbytes
            ticket.total_bytes += nbytes
            self._request_bytes += nbytes

    def give(self, ticket: Ticket, nbytes: int) -> None:
        """As `Ticket.give`."""
        with self._lock:
            ticket.request_bytes -= nbytes
            self._request_bytes -= nbytes

    def on_drain(self, ticket: Ticket, callback: Callable[[], None]) -> None:
        """As `Ticket.on_drain`; called at once when the server is shutting down already."""
        with self._lock:
            self._drains[ticket] = callback
            draining = self._draining
        if draining:
            callback()

    def leave(self, ticket: Ticket) -> None:
        """Gives the place back: the answer is ready, so that the client may call again as soon as it has it."""
        with self._lock:
            self._drains.pop(ticket, None)
            self._in_progress[ticket.quota] -= 1
            self._request_bytes -= ticket.request_bytes

    def finish(self) -> None:
        """As `Ticket.finish`."""
        with self._lock:
            self._unfinished -= 1
            if self._draining:
                self._changed.notify_all()

    def drain(self, timeout: float) -> bool:
        """Refuses new calls from now on; waits until those in progress are finished, and tells whether all are."""
        with self._lock:
            self._draining = True
            callbacks = list(self._drains.values())
        for callback in callbacks:
            callback()
        with self._changed:
            return self._changed.wait_for(lambda: not self._unfinished, timeout)


def _overloaded(message: str, quota: str) -> Overloaded:
    return Overloaded(f"{message}; call again later", retry_after=RETRY_SECONDS, quota=quota)
