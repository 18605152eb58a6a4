"""Calls are spans where the application has configured OpenTelemetry, and cost nothing where it has not."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.client.fake_service import FakeService
from tests.client.refusing import Fault
from tests.waiting import until

import backwire as bw
from backwire._wire._tracing import SERVICE

INPUTS: dict[str, Any] = {"x": np.ones((1, 2), np.float32), "labels": np.zeros(1, np.int64)}


class Spans:
    """What an application with OpenTelemetry exports."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("application")

    def all_of(self, method: str) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == f"{SERVICE}/{method}"]

    def of(self, method: str) -> ReadableSpan:
        [found] = self.all_of(method)
        return found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Those from now on."""
    made = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made.provider)
    return made


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def test_a_call_is_a_span_of_which_the_server_is_told(session: bw.Session, spans: Spans, service: FakeService) -> None:
    session.train_step(INPUTS)
    span = spans.of("TrainStep")
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "TrainStep",
        "rpc.grpc.status_code": 0,
        "backwire.session": session.id[:8],
    }
    assert span.status.status_code is StatusCode.UNSET
    assert service.metadata[-1]["traceparent"] == traceparent(span)


def test_a_call_lies_below_the_span_in_which_it_was_made(session: bw.Session, spans: Spans) -> None:
    with spans.tracer.start_as_current_span("work") as work:
        session.train_step(INPUTS)
    found = spans.of("TrainStep")
    assert found.parent == work.get_span_context()


def test_repetitions_are_events_of_one_span(
    session: bw.Session, spans: Spans, service: FakeService, refuse: Callable[..., Fault]
) -> None:
    busy = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after=0.01)
    service.before["Step"] = [busy, busy]
    session.step()
    told = [(event.name, dict(event.attributes or {})) for event in spans.of("Step").events]
    assert [(name, each["error.type"], each["backwire.attempt"]) for name, each in told] == [
        ("retry", "OVERLOADED", 1),
        ("retry", "OVERLOADED", 2),
    ]
    assert spans.of("Step").status.status_code is StatusCode.UNSET
    assert [each["traceparent"] for each in service.metadata[-3:]] == [traceparent(spans.of("Step"))] * 3


def test_a_failure_tells_its_code_and_reason_and_not_its_message(
    session: bw.Session, spans: Spans, service: FakeService, refuse: Callable[..., Fault]
) -> None:
    service.before["Step"] = [refuse(grpc.StatusCode.ABORTED, "of session secret", reason="STEP_MISMATCH")]
    with pytest.raises(bw.StepMismatchError):
        session.step()
    span = spans.of("Step")
    told = dict(span.attributes or {})
    assert (told["rpc.grpc.status_code"], told["error.type"]) == (10, "STEP_MISMATCH")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "STEP_MISMATCH")
    assert "secret" not in span.to_json()


def test_streams_are_spans(session: bw.Session, spans: Spans, service: FakeService) -> None:
    session.parameters()
    session.set_parameters({"b": np.zeros(2, np.float32)})
    for method in ("GetParameters", "SetParameters"):
        assert dict(spans.of(method).attributes or {})["rpc.grpc.status_code"] == 0
    assert [each["traceparent"] for each in service.metadata[-2:]] == [
        traceparent(spans.of(method)) for method in ("GetParameters", "SetParameters")
    ]


def test_a_pipeline_is_a_span_below_the_one_in_which_it_was_opened(
    session: bw.Session, spans: Spans, service: FakeService
) -> None:
    with spans.tracer.start_as_current_span("work") as work, session.pipeline() as pipe:
        pipe.train_step(INPUTS)
    until(lambda: spans.all_of("Pipeline"))  # the stream ends in a thread of its own
    span = spans.of("Pipeline")
    assert span.parent == work.get_span_context()
    assert service.metadata[-1]["traceparent"] == traceparent(span)


def test_an_interrupted_call_ends_its_span(session: bw.Session, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session._transport.stub, "Step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.step()
    told = dict(spans.of("Step").attributes or {})
    assert told["error.type"] == "KeyboardInterrupt"
    assert "rpc.grpc.status_code" not in told


def test_without_a_provider_nothing_is_sent(session: bw.Session, service: FakeService) -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    session.step()
    assert "traceparent" not in service.metadata[-1]


def test_the_client_imports_nothing_of_opentelemetry(target: str) -> None:
    script = (
        "import sys, backwire as bw\n"
        f"with bw.connect({target!r}) as client: client.ops()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_an_awaited_call_is_a_span_below_the_one_in_which_it_was_made(
    target: str, spans: Spans, service: FakeService
) -> None:
    async def work() -> None:
        async with bw.aio.connect(target, timeout=10) as client:
            with spans.tracer.start_as_current_span("work"):
                await client.ops()

    asyncio.run(work())
    span = spans.of("ListOps")
    assert span.parent is not None
    assert service.metadata[-1]["traceparent"] == traceparent(span)
