"""How much the server takes on at a time."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from backwire_server.config_parts import Capacity
from backwire_server.rpc.waiting import Returns, Wait, overloaded
from backwire_server.sessions.errors import Overloaded, ShuttingDown
from backwire_server.sessions.limits import LimitsOf, unlimited

CALLS, STREAMS, PIPELINES = "max_concurrent_calls", "max_concurrent_streams", "max_concurrent_pipelines"
LOOKUPS = "max_concurrent_lookups"
QUOTAS = (CALLS, STREAMS, PIPELINES, LOOKUPS)

LOOKING = {"GetSession", "ListSessions", "ListCheckpoints", "ListOps", "GetStatus", "GetSessionHistory"}
"""Methods that compute nothing. They have places of their own, so that they are answered where all others wait."""

TENANT_CALLS = "tenant_max_calls"

LOOK_SECONDS = 0.05
"""How long nobody is looked for who waits too long, once nobody was found: floods are refused without it."""

SHARE = 2
"""A tenant among others may have this many times the places that are free: a few floods leave some for who comes."""


def quota_of(method: str, *, client_streaming: bool, server_streaming: bool) -> str:
    """Returns the limit of Capacity that calls of a method count for."""
    if method in LOOKING:
        return LOOKUPS
    return (CALLS, STREAMS, PIPELINES)[client_streaming + server_streaming]


class Ticket:
    """A place among the calls in progress; `quota` names the limit that it counts for.

    Attributes:
        request_bytes: The bytes of its requests that it holds.
        total_bytes: The bytes of its requests in all.
        wait: Whether it waits for its client.
        eviction: Why it lost its place to another call, if it did.
        left: Whether the place was given back; what threads of the call still tell does not count then.
    """

    __slots__ = ("_admission", "eviction", "left", "quota", "request_bytes", "tenant", "total_bytes", "wait")

    def __init__(self, admission: "Admission", quota: str, tenant: str, wait: Wait) -> None:
        self.quota = quota
        self.tenant = tenant
        self.request_bytes = 0
        self.total_bytes = 0
        self.wait = wait
        self.eviction: Overloaded | None = None
        self.left = False
        self._admission = admission

    def take(self, nbytes: int) -> None:
        """Adds bytes of the request; raises Overloaded when calls in progress hold too many already."""
        self.wait.heard()
        self._admission.take(self, nbytes)

    def give(self, nbytes: int) -> None:
        """Takes back bytes of requests that were answered, while the call goes on."""
        self._admission.give(self, nbytes)

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Has `callback` called, from another thread, if the server begins to shut down before the call is left."""
        self._admission.on_drain(self, callback)

    def on_eviction(self, callback: Callable[[], object]) -> None:
        """Has `callback` called if another call gets the place, since this one waits too long for its client.

        That is called from any thread, under a lock, and must end the call.
        """
        self._admission.on_eviction(self, callback)

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

    Nothing ever waits here, so calls cannot block each other. Where there is no room, a call that waits for its client
    for longer than its patience gives its place to the next.
    """

    def __init__(
        self,
        capacity: Capacity,
        limits_of: LimitsOf = unlimited,
        crowded: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Holds each tenant to its limits besides; where it is `crowded`, there may be several of them."""
        self._limits: dict[str, int] = {quota: getattr(capacity, quota) for quota in QUOTAS}
        self._max_request_bytes = capacity.max_request_bytes
        self._patience = capacity.patience
        self._clock = clock
        self._limits_of = limits_of
        self._crowded = crowded
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._in_progress = dict.fromkeys(QUOTAS, 0)
        self._by_tenant: Counter[tuple[str, str]] = Counter()
        self._returns = {quota: Returns(clock) for quota in QUOTAS}
        self._drains: dict[Ticket, Callable[[], None]] = {}
        self._evictions: dict[Ticket, Callable[[], object]] = {}
        self._looks = dict.fromkeys(QUOTAS, 0.0)  # when the next look for one to evict is worth its time
        self._request_bytes = 0
        self._unfinished = 0
        self._draining = False

    def enter(self, quota: str = CALLS, tenant: str = "") -> Ticket:
        """Returns a place for a call, to be used in a `with`; raises Overloaded, or ShuttingDown after `drain`.

        `quota` is the limit of Capacity that it counts for, one of QUOTAS.
        """
        most = self._limits_of(tenant).tenant_max_calls
        crowded = self._crowded()
        with self._lock:
            if self._draining:
                raise ShuttingDown("the server is shutting down; call another, or again later", retry_after=1.0)
            limit = self._limits[quota]
            if self._in_progress[quota] >= limit and not self._evict(quota):
                raise self._refusal(f"{limit:,} calls of this kind are in progress, which is the limit", quota)
            count = self._in_progress[quota]
            mine = self._by_tenant[tenant, quota]
            if crowded and mine >= SHARE * (limit - count):
                what = f"tenant {tenant!r} has {mine:,} calls of this kind in progress, and {limit - count:,} places"
                raise self._refusal(f"{what} are for others", quota)
            if most is not None and sum(self._by_tenant[tenant, each] for each in QUOTAS) >= most:
                raise self._refusal(f"tenant {tenant!r} has {most:,} calls in progress", quota, TENANT_CALLS)
            self._in_progress[quota] += 1
            self._by_tenant[tenant, quota] += 1
            self._unfinished += 1
        return Ticket(self, quota, tenant, Wait(self._patience, self._clock))

    def _evict(self, quota: str) -> bool:
        """Ends the call that waits longest beyond its patience, if one does, and tells whether a place is free now."""
        now = self._clock()
        if now < self._looks[quota]:
            return False
        waiting = [ticket for ticket in self._evictions if ticket.quota == quota]
        ticket = max(waiting, key=lambda each: each.wait.overdue(), default=None)
        if ticket is None or ticket.wait.overdue() <= 0:
            self._looks[quota] = now + LOOK_SECONDS
            return False
        ticket.eviction = self._refusal("the call waited too long for its client, and another had its place", quota)
        self._free(ticket)
        self._evictions.pop(ticket)()
        return True

    def _refusal(self, what: str, quota: str, named: str = "") -> Overloaded:
        return overloaded(what, named or quota, self._returns[quota].next())

    def usage(self, quota: str) -> tuple[int, int]:
        """Returns how many calls are in progress that count for a limit of Capacity, and the limit."""
        return self._in_progress[quota], self._limits[quota]

    def take(self, ticket: Ticket, nbytes: int) -> None:
        """As `Ticket.take`. A call that is alone may have all it wants: messages have a limit of their own."""
        with self._lock:
            if ticket.left:
                return
            others = self._request_bytes - ticket.request_bytes
            if others and self._request_bytes + nbytes > self._max_request_bytes:
                limit = f"{self._max_request_bytes:,}"
                held = f"the requests in progress hold the limit of {limit} bytes"
                raise overloaded(held, "max_request_bytes", self._returns[ticket.quota].next())
            ticket.request_bytes += nbytes
            ticket.total_bytes += nbytes
            self._request_bytes += nbytes

    def give(self, ticket: Ticket, nbytes: int) -> None:
        """As `Ticket.give`."""
        with self._lock:
            if not ticket.left:
                ticket.request_bytes -= nbytes
                self._request_bytes -= nbytes

    def on_drain(self, ticket: Ticket, callback: Callable[[], None]) -> None:
        """As `Ticket.on_drain`; called at once when the server is shutting down already."""
        with self._lock:
            if ticket.left:
                return
            self._drains[ticket] = callback
            draining = self._draining
        if draining:
            callback()

    def on_eviction(self, ticket: Ticket, callback: Callable[[], object]) -> None:
        """As `Ticket.on_eviction`."""
        with self._lock:
            if ticket.eviction is None and not ticket.left:
                self._evictions[ticket] = callback

    def leave(self, ticket: Ticket) -> None:
        """Gives the place back: the answer is ready, so that the client may call again as soon as it has it."""
        with self._lock:
            ticket.left = True
            self._drains.pop(ticket, None)
            self._evictions.pop(ticket, None)
            self._request_bytes -= ticket.request_bytes
            if ticket.eviction is None:
                self._free(ticket)

    def _free(self, ticket: Ticket) -> None:
        if self._in_progress[ticket.quota] >= self._limits[ticket.quota] // SHARE:
            self._returns[ticket.quota].left()
        self._in_progress[ticket.quota] -= 1
        key = ticket.tenant, ticket.quota
        self._by_tenant[key] -= 1
        if not self._by_tenant[key]:
            del self._by_tenant[key]

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


def drained() -> ShuttingDown:
    """Returns the error that ends a stream whose server shuts down."""
    return ShuttingDown("the server is shutting down; open a stream on another", retry_after=1.0)
