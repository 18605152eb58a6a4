"""One trace from the client through the server: over real sockets, to a collector that speaks OTLP."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.e2e.conftest import ServerProcess

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc

BATCH = {"target": [1.0, 2.0, 3.0]}
SECONDS = 30.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVICE = "backwire_api.v1.GradientService"

Start = Callable[..., ServerProcess]


class Collector(otlp_grpc.TraceServiceServicer):
    """Takes spans over OTLP, as those who watch a server run one."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self._server = grpc.server(ThreadPoolExecutor(2))
        register: Any = otlp_grpc.add_TraceServiceServicer_to_server
        register(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return otlp.ExportTraceServiceResponse()

    def span(self, name: str) -> Any:
        [found] = [span for span in self.spans if span.name == name]
        return found

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of this process, the client's."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


def await_end(exporter: InMemorySpanExporter, name: str) -> None:
    """Waits until a span has ended: that of a stream does so in a thread of its own."""
    deadline = time.monotonic() + SECONDS
    while not any(span.name == name for span in exporter.get_finished_spans()):
        assert time.monotonic() < deadline, "it never ended"
        time.sleep(0.005)


def variables(collector: Collector, workers: int, **others: str) -> dict[str, str]:
    return {
        "BACKWIRE_WORKERS": str(workers),
        "BACKWIRE_TRACING": "yes",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        **others,
    }


def graph() -> bw.Graph:
    w = bw.parameter("w", [0.0, 0.0, 0.0])
    return bw.graph(loss=bw.squared_error(w, bw.input("target", (3,))))


@pytest.mark.parametrize("workers", [1, 2])
def test_spans_of_the_client_and_of_the_server_are_one_trace(
    start_server: Start, collector: Collector, sent: InMemorySpanExporter, tmp_path: Path, workers: int
) -> None:
    server = start_server("--data-dir", str(tmp_path / "data"), environment=variables(collector, workers))
    with bw.connect(server.wait_until_ready(), timeout=SECONDS) as client:
        session = client.create_session(graph(), bw.SGD(0.1))
        session.train_step(BATCH)
        with session.pipeline() as pipe:
            pipe.train_step(BATCH)
        await_end(sent, f"{SERVICE}/Pipeline")
    server.signal()
    assert server.wait() == 0, "".join(server.errors)
    assert collector.services == {"backwire"}
    ours = {span.name: span.context for span in sent.get_finished_spans() if span.context is not None}
    for method in ("CreateSession", "TrainStep", "Pipeline"):
        call, own = collector.span(f"{SERVICE}/{method}"), ours[f"{SERVICE}/{method}"]
        assert int.from_bytes(call.trace_id) == own.trace_id
        assert int.from_bytes(call.parent_span_id) == own.span_id
    whole, part = collector.span(f"{SERVICE}/Pipeline"), collector.span("Pipeline/train_step")
    assert (part.trace_id, part.parent_span_id) == (whole.trace_id, whole.span_id)
    written = [span for span in collector.spans if span.name == "journal"]
    steps = {part.span_id, collector.span(f"{SERVICE}/TrainStep").span_id}
    assert {span.parent_span_id for span in written} == steps, "the session is durable"


def test_a_call_by_the_front_is_a_part_of_the_trace_that_its_metadata_name(
    start_server: Start, collector: Collector
) -> None:
    server = start_server(environment=variables(collector, 2, OTEL_SERVICE_NAME="trainer"))
    metadata = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
    request = pb.PipelineRequest(id=1, get_session=pb.GetSessionRequest(session_id="nobody"))
    with grpc.insecure_channel(server.wait_until_ready()) as channel:
        stub = pb_grpc.GradientServiceStub(channel)
        stub.ListOps(pb.ListOpsRequest(), timeout=SECONDS, metadata=metadata)
        assert list(stub.Pipeline(iter([request]), timeout=SECONDS, metadata=metadata))
    server.signal()
    assert server.wait() == 0, "".join(server.errors)
    assert collector.services == {"trainer"}
    for name in (f"{SERVICE}/ListOps", f"{SERVICE}/Pipeline", "Pipeline/get_session"):
        assert collector.span(name).trace_id.hex() == TRACE


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exporter_that_there_is_not_is_told_at_the_start(
    start_server: Start, collector: Collector, workers: int
) -> None:
    server = start_server(environment=variables(collector, workers, OTEL_TRACES_EXPORTER="telegraph"))
    assert server.wait() == 1
    assert "OTEL_TRACES_EXPORTER=telegraph" in "".join(server.errors)


def test_without_a_collector_calls_are_answered_and_the_server_ends(start_server: Start, collector: Collector) -> None:
    collector.stop()
    server = start_server(environment=variables(collector, 1))
    with bw.connect(server.wait_until_ready(), timeout=SECONDS) as client:
        client.create_session(graph(), bw.SGD(0.1)).train_step(BATCH)
    server.signal()
    assert server.wait() == 0, "".join(server.errors)
