"""What comes of the requests of a Pipeline stream, and how metrics, traces and the access log are told."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backwire_server.rpc.admission import Ticket
from backwire_server.rpc.pipeline_requests import Work
from backwire_server.rpc.rates import Rates
from backwire_server.sessions.caller import Caller
from backwire_server.sessions.spent import Spent
from backwire_server.telemetry.facts import CallFacts
from backwire_server.telemetry.metrics import Metrics

if TYPE_CHECKING:  # it needs an extra
    from backwire_server.telemetry.tracing import CallSpan

_ACCESS = logging.getLogger("backwire.access")


@dataclass(frozen=True, slots=True)
class Incoming:
    """The serialized messages of a stream, its place among the calls in progress, what counts requests, its span."""

    messages: Iterator[bytes]
    ticket: Ticket
    metrics: Metrics
    rates: Rates
    renew: Callable[[], Caller]
    span: "CallSpan | None" = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: a result or an error; and what flushes it, if it must be before it is told."""

    work: Work
    started: float
    spent: Spent
    result: object = None
    error: Exception | None = None
    flush: Future[None] | None = None

    def settled(self) -> "Outcome":
        """Waits for the flush; raises StorageFailed, after which the stream cannot go on: nobody knows what is done."""
        if self.flush is not None:
            began = time.perf_counter()
            self.flush.result()
            self.spent.journal += time.perf_counter() - began
        return self

    def tell(
        self, incoming: Incoming, caller: Caller, peer: Callable[[], str], code: str, reason: str, response_bytes: int
    ) -> None:
        """Tells metrics, the span of the stream and the access log how the request ended."""
        facts = CallFacts(
            method=f"Pipeline/{self.work.kind or 'unknown'}",
            code=code,
            reason=reason,
            seconds=time.perf_counter() - self.started,
            spent=self.spent,
            request_bytes=self.work.nbytes,
            response_bytes=response_bytes,
            tenant=caller.tenant,
            streaming=True,
        )
        session = self.work.session_id[:8]
        incoming.metrics.ended(facts)
        if incoming.span is not None:
            incoming.span.request(facts, self.started, session)
        if not _ACCESS.isEnabledFor(logging.INFO):
            return
        data = {
            "method": facts.method,
            "reason": reason,
            "milliseconds": round(facts.seconds * 1e3, 3),
            "server_timing": facts.spent.header(),
            "request_bytes": facts.request_bytes,
            "response_bytes": response_bytes,
            "session": session,
            "caller": caller.name,
            "tenant": facts.tenant,
            "peer": peer(),
        }
        if incoming.span is not None:
            data["trace_id"] = incoming.span.trace_id
        _ACCESS.info("request", extra={"data": data})
