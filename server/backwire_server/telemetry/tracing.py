"""Spans of calls, by OpenTelemetry's conventions for RPCs, as parts of the traces that clients began."""

import time
from collections.abc import Iterable

from grpc import StatusCode
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, TracerProvider, format_trace_id, set_span_in_context
from opentelemetry.trace import StatusCode as Outcome
from opentelemetry.util.types import AttributeValue

from backwire_server.telemetry.facts import CallFacts

SERVICE = "backwire_api.v1.GradientService"
PHASES = ("queue", "compute", "journal")

FAULTS = {
    StatusCode[name].name
    for name in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
}
"""The status codes that are errors of a server; others are the caller's."""


class Tracer:
    """Makes the spans of calls. May be used by several threads at once."""

    def __init__(self, provider: TracerProvider) -> None:
        """Has the provider export them."""
        self._tracer = provider.get_tracer("backwire.server")

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> "CallSpan":
        """Returns the span of a call that begins now, a child of the one that its metadata name, if they do."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        return CallSpan(self, method, propagate.extract(carrier))

    def start(self, name: str, method: str, kind: SpanKind, parent: Context, start: int) -> Span:
        """Starts a span of a method, at a time in nanoseconds since 1970."""
        attributes = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": method}
        return self._tracer.start_span(name, parent, kind, attributes, start_time=start)

    def phase(self, name: str, parent: Context, start: int, end: int) -> None:
        """Makes the span of a part of a call."""
        self._tracer.start_span(name, parent, start_time=start).end(end)


class CallSpan:
    """The span of a call that goes on. All its times follow from that of its begin, whatever becomes of the clock.

    Attributes:
        trace_id: That of its trace, in hexadecimal digits.
    """

    def __init__(self, tracer: Tracer, method: str, parent: Context) -> None:
        self._tracer = tracer
        self._clock = time.time_ns(), time.perf_counter()
        self._span = tracer.start(f"{SERVICE}/{method}", method, SpanKind.SERVER, parent, self._clock[0])
        self._context = set_span_in_context(self._span, parent)
        self.trace_id = format_trace_id(self._span.get_span_context().trace_id)

    def end(self, facts: CallFacts, session: str, request_id: str) -> None:
        """Ends it; `session` and `request_id` are the beginnings of what the call names."""
        self._finish(self._span, self._context, facts, session)
        if request_id:
            self._span.set_attribute("backwire.request_id", request_id)
        self._span.end(self._at(time.perf_counter()))

    def request(self, facts: CallFacts, began: float, session: str) -> None:
        """Makes a span below this one, of a request on a stream that is answered; it began at a `perf_counter`."""
        span = self._tracer.start(facts.method, facts.method, SpanKind.INTERNAL, self._context, self._at(began))
        self._finish(span, set_span_in_context(span, self._context), facts, session)
        span.end(self._at(time.perf_counter()))

    def _finish(self, span: Span, context: Context, facts: CallFacts, session: str) -> None:
        """Has a span tell what came of the call, and where its time went."""
        if not span.is_recording():
            return
        attributes: dict[str, AttributeValue] = {
            "rpc.grpc.status_code": StatusCode[facts.code].value[0],
            "backwire.tenant": facts.tenant,
            "backwire.request_bytes": facts.request_bytes,
            "backwire.response_bytes": facts.response_bytes,
        }
        if session:
            attributes["backwire.session"] = session
        if facts.code != StatusCode.OK.name:
            attributes["error.type"] = facts.reason
        span.set_attributes(attributes)
        if facts.code in FAULTS:
            span.set_status(Status(Outcome.ERROR, facts.reason))
        start = facts.spent.began
        for phase in PHASES if start else ():
            seconds = getattr(facts.spent, phase)
            if seconds > 0:
                self._tracer.phase(phase, context, self._at(start), self._at(start + seconds))
            start += seconds

    def _at(self, moment: float) -> int:
        """Returns a time of `perf_counter` in nanoseconds since 1970."""
        nanoseconds, began = self._clock
        return nanoseconds + round((moment - began) * 1e9)
