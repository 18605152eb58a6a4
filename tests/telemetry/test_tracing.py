"""Spans of calls: where they hang, what they tell, and that they tell no secrets."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.rpc.conftest import Api

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Capacity
from backwire_server.rpc.server import Server
from backwire_server.sessions.limits import Limits
from backwire_server.telemetry.tracing import SERVICE, Tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)


class Traced(Api):
    """A server whose spans are kept in memory, and a client of it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        super().__init__(Server("127.0.0.1:0", Limits(), Capacity(), tracer=Tracer(provider)))

    def spans(self, name: str) -> list[ReadableSpan]:
        """All that have a name; that of a call ends before the client learns how the call did."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        [found] = self.spans(name)
        return found


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.channel.close()
    made.server.stop(5.0)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def within(inner: ReadableSpan, outer: ReadableSpan) -> bool:
    return bool(
        inner.parent
        and outer.context
        and inner.parent.span_id == outer.context.span_id
        and inner.context
        and inner.context.trace_id == outer.context.trace_id
    )


def train(session_id: str, **request: Any) -> pb.TrainStepRequest:
    inputs = {"x": tensors.encode([1.0, -2.0, 4.0])}
    return pb.TrainStepRequest(session_id=session_id, inputs=inputs, **request)


def test_a_call_is_a_part_of_the_trace_that_its_metadata_name(traced: Traced) -> None:
    session_id = traced.create()
    traced.stub.TrainStep(train(session_id, request_id="first"), metadata=SAMPLED)
    span = traced.span(f"{SERVICE}/TrainStep")
    assert span.kind is SpanKind.SERVER
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    told = attributes(span)
    assert told.pop("backwire.request_bytes") > 0
    assert told.pop("backwire.response_bytes") > 0
    assert told == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "TrainStep",
        "rpc.grpc.status_code": 0,
        "backwire.session": session_id[:8],
        "backwire.request_id": "first",
        "backwire.tenant": "default",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_call_without_a_trace_begins_one_and_one_that_is_not_sampled_is_not_told(traced: Traced) -> None:
    session_id = traced.create()
    traced.info(session_id)
    unsampled = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
    traced.stub.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=unsampled)
    assert traced.span(f"{SERVICE}/GetSession").parent is None


@pytest.mark.parametrize("header", ["", "00", "00-" + "0" * 32 + "-" + PARENT + "-01", "x" * 4_000])
def test_a_trace_that_makes_no_sense_is_none(traced: Traced, header: str) -> None:
    traced.stub.ListOps(pb.ListOpsRequest(), metadata=(("traceparent", header),))
    assert traced.span(f"{SERVICE}/ListOps").parent is None


def test_the_parts_of_a_call_lie_below_it_one_after_another(traced: Traced) -> None:
    traced.stub.TrainStep(train(traced.create()), metadata=SAMPLED)
    [call], [queue], [compute] = (traced.spans(name) for name in (f"{SERVICE}/TrainStep", "queue", "compute"))
    assert traced.spans("journal") == [], "nothing is written of a session in memory alone"
    assert within(queue, call)
    assert within(compute, call)
    moments = [call.start_time, queue.start_time, queue.end_time, compute.end_time, call.end_time]
    assert sorted(moments, key=lambda each: each or 0) == moments
    assert queue.end_time == compute.start_time


def test_a_span_ends_after_it_began_though_the_clock_is_set_back_meanwhile(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = traced.create()
    began, actual = iter([time.time_ns()]), time.time_ns
    with monkeypatch.context() as changed:
        changed.setattr(time, "time_ns", lambda: next(began, actual() - 3_600 * 10**9))
        traced.stub.TrainStep(train(session))
        [call] = traced.spans(f"{SERVICE}/TrainStep")
    assert call.start_time is not None
    assert call.end_time is not None
    assert call.start_time <= call.end_time


def test_a_refusal_tells_its_reason_and_is_an_error_of_the_server_only_where_it_is_one(traced: Traced) -> None:
    whole = "unknown-session-of-somebody-else"
    with pytest.raises(grpc.RpcError):
        traced.stub.TrainStep(train(whole))
    span = traced.span(f"{SERVICE}/TrainStep")
    told = attributes(span)
    assert (told["error.type"], told["rpc.grpc.status_code"]) == ("SESSION_NOT_FOUND", 5)
    assert span.status.status_code is StatusCode.UNSET, "that was the caller's"
    assert whole not in span.to_json(), "of a session only the beginning of its id is told"


def test_a_server_that_shuts_down_is_told_as_an_error(traced: Traced) -> None:
    traced.server.admission.drain(0.0)
    with pytest.raises(grpc.RpcError):
        traced.stub.ListOps(pb.ListOpsRequest())
    span = traced.span(f"{SERVICE}/ListOps")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "SHUTTING_DOWN")
    assert attributes(span)["error.type"] == "SHUTTING_DOWN"


def test_each_request_on_a_stream_has_a_span_below_that_of_the_stream(traced: Traced) -> None:
    session_id = traced.create()
    requests = [
        pb.PipelineRequest(id=1, train_step=train(session_id)),
        pb.PipelineRequest(id=2, step=pb.StepRequest(session_id=session_id)),
    ]
    assert len(list(traced.stub.Pipeline(iter(requests), metadata=SAMPLED))) == 2
    call, done, failed = (traced.span(name) for name in (f"{SERVICE}/Pipeline", "Pipeline/train_step", "Pipeline/step"))
    assert call.context is not None
    assert f"{call.context.trace_id:032x}" == TRACE
    assert within(done, call)
    assert within(failed, call)
    assert attributes(done)["backwire.session"] == session_id[:8]
    assert attributes(failed)["error.type"] == "NO_GRADIENTS"
    assert [within(each, done) for each in traced.spans("compute")].count(True) == 1


def test_no_number_of_a_tensor_is_told(traced: Traced) -> None:
    secret = 12345.678
    session_id = traced.create()
    traced.train(session_id, [secret, secret, secret])
    assert not [span for span in traced.exporter.get_finished_spans() if "12345" in span.to_json()]


def test_the_log_of_calls_tells_the_trace(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    requests = [pb.PipelineRequest(id=1, step=pb.StepRequest(session_id=traced.create()))]
    with caplog.at_level(logging.INFO, "backwire.access"):
        assert list(traced.stub.Pipeline(iter(requests), metadata=SAMPLED))
    told = {record.message: vars(record)["data"]["trace_id"] for record in caplog.records}
    assert told == {"request": TRACE, "call": TRACE}
