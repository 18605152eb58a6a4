"""A call in progress: who makes it, its place among the others, and what is told of it at its end."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from grpc_status import rpc_status

from backwire_server.access import permissions
from backwire_server.rpc.admission import Admission, Ticket
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.rates import Charge, Rates
from backwire_server.rpc.scope import RpcScope
from backwire_server.sessions.caller import ANYONE, Caller
from backwire_server.sessions.errors import Cancelled
from backwire_server.sessions.limits import Limits
from backwire_server.telemetry.facts import CallFacts
from backwire_server.telemetry.metrics import Metrics

if TYPE_CHECKING:  # it needs an extra
    from backwire_server.telemetry.tracing import CallSpan, Tracer

_ACCESS = logging.getLogger("backwire.access")

OK = grpc.StatusCode.OK.name
SHOWN = 32
"""How much of a name that a client chose is logged."""

Metadata = Iterable[tuple[str, str | bytes]]


def let_in(_: Metadata) -> Caller:
    """Says of every call that anyone makes it."""
    return ANYONE


@dataclass(frozen=True, slots=True)
class Reception:
    """What all calls pass: who they are by their metadata, if there is room for them, what is counted and traced."""

    admission: Admission
    metrics: Metrics
    identify: Callable[[Metadata], Caller] = let_in
    rates: Rates = field(default_factory=Rates)
    limits: Limits = field(default_factory=Limits)
    tracer: "Tracer | None" = None


class Call:
    """A call as a context: known and admitted in its beginning, its failure and its figures told at its end.

    Attributes:
        method: The name of the method.
        scope: What the session gets to know of the call.
        session: The beginning of the id of its session, once that was read.
        request_id: The beginning of the id of the mutation, once that was read.
        response_bytes: How many bytes it was answered so far.
        span: Its span, once it was begun; None where calls are not traced.
        besides: What the metadata of its answer have besides where the time went.
    """

    def __init__(
        self, method: str, context: grpc.ServicerContext, reception: Reception, quota: str, *, tells_late: bool = False
    ) -> None:
        """`tells_late` has its figures told once it was answered, where `context` calls back at that time."""
        self.method = method
        self.scope = RpcScope(context)
        self.session = ""
        self.request_id = ""
        self.response_bytes = 0
        self.span: CallSpan | None = None
        self.besides: tuple[tuple[str, str], ...] = ()
        self._tenant = ""  # as long as nobody knows who calls
        self._ticket: Ticket | None = None
        self._quota = quota
        self._reception = reception
        self._tells_late = tells_late
        self._started = time.perf_counter()

    def __enter__(self) -> Ticket:
        self._reception.metrics.started(self.method)
        context = self.scope.context
        if self._reception.tracer is not None:
            self.span = self._reception.tracer.begin(self.method, context.invocation_metadata())
        try:
            self.scope.caller = self._reception.identify(context.invocation_metadata())
            self._tenant = self.scope.caller.tenant
            permissions.check(self.scope.caller, self.method)
            self._reception.rates.begin(self._tenant)
            self.scope.stop.charge = Charge(self._reception.rates, self._tenant)
            ticket = self._ticket = self._reception.admission.enter(self._quota, self._tenant)
        except Exception as error:
            self._end(error)
            raise AssertionError("an aborted call goes on") from error
        ticket.on_eviction(context.cancel)
        if not context.add_callback(self._over):
            self._over()  # the call is over already
        return ticket

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._ticket is not None
        self._ticket.leave()
        self._end(error)

    def name(self, request: Any) -> None:
        """Notes of a request message, for the log, what it is about."""
        self.session = getattr(request, "session_id", "")[:8]
        self.request_id = getattr(request, "request_id", "")[:SHOWN]

    @property
    def limits(self) -> Limits:
        """What its messages are held to."""
        return self._reception.limits

    def renew(self) -> Caller:
        """Returns who calls by what is known now; raises Unauthenticated when the token is good no more."""
        return self._reception.identify(self.scope.context.invocation_metadata())

    def received(self, nbytes: int) -> None:
        """Counts bytes of the request."""
        self._reception.rates.received(self._tenant, nbytes)

    def answered(self, data: bytes) -> bytes:
        """Counts a part of the answer, and returns it."""
        self.response_bytes += len(data)
        return data

    def tell_time(self) -> None:
        """Has the client told where the time went; to be called before the last part of the answer."""
        self.scope.context.set_trailing_metadata((("server-timing", self.scope.spent.header()), *self.besides))

    def _over(self) -> None:
        self.scope.end()
        assert self._ticket is not None
        self._ticket.finish()

    def _end(self, error: BaseException | None) -> None:
        code, reason = OK, OK
        try:
            if isinstance(error, Exception):
                gone = isinstance(error, grpc.RpcError)  # the client went while its messages were read
                status, reason = status_of(self._why_gone() if gone else error)
                told = rpc_status.to_status(status)
                code = told.code.name
                self.scope.context.abort_with_status(told)
            if error is not None:  # the client went while it was answered
                code = reason = grpc.StatusCode.CANCELLED.name
        finally:
            tell = partial(self._tell, code, reason, time.perf_counter() - self._started)
            if not (self._tells_late and self.scope.context.add_callback(tell)):
                tell()

    def _why_gone(self) -> Exception:
        evicted = self._ticket.eviction if self._ticket is not None else None
        return evicted or Cancelled("the call was cancelled")

    def _tell(self, code: str, reason: str, seconds: float) -> None:
        request_bytes = self._ticket.total_bytes if self._ticket is not None else 0
        caller = self.scope.caller
        facts = CallFacts(
            method=self.method,
            code=code,
            reason=reason,
            seconds=seconds,
            spent=self.scope.spent,
            request_bytes=request_bytes,
            response_bytes=self.response_bytes,
            tenant=self._tenant,
            streaming=False,
        )
        self._reception.metrics.ended(facts)
        if self.span is not None:
            self.span.end(facts, self.session, self.request_id)
        if _ACCESS.isEnabledFor(logging.INFO):
            data = {
                "method": self.method,
                "reason": reason,
                "milliseconds": round(seconds * 1e3, 3),
                "server_timing": self.scope.spent.header(),
                "request_bytes": request_bytes,
                "response_bytes": self.response_bytes,
                "session": self.session,
                "request_id": self.request_id,
                "caller": caller.name,
                "tenant": self._tenant,
                "peer": self.scope.context.peer(),
            }
            if self.span is not None:
                data["trace_id"] = self.span.trace_id
            _ACCESS.info("call", extra={"data": data})
