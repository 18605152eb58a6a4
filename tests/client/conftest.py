"""A test double of the service on a real socket, and clients and sessions of it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.client.fake_service import FakeService
from tests.client.refusing import Fault, refusal

import backwire as bw
from backwire_api.v1 import gradient_service_pb2_grpc as service_grpc


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def refuse() -> Callable[..., Fault]:
    return refusal


@pytest.fixture
def health_servicer() -> Any:
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    return servicer


@pytest.fixture
def target(service: FakeService, health_servicer: Any) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    service_grpc.add_GradientServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def client(target: str) -> Iterator[bw.Client]:
    with bw.connect(target, timeout=10, retry=bw.Retry(attempts=4, initial=0.01)) as connected:
        yield connected


@pytest.fixture
def session(client: bw.Client) -> bw.Session:
    """A session with a float32 input `x`, an int64 input `labels`, parameters `w`, `b` and a frozen `table`."""
    x = bw.input("x", ("batch", 2))
    labels = bw.input("labels", ("batch",), "int64")
    w = bw.parameter("w", [[1.0, 2.0], [3.0, 4.0]])
    b = bw.parameter("b", [0.5, 0.5])
    table = bw.parameter("table", [10, 20], dtype="int64", frozen=True)
    y = x @ w + b
    graph = bw.graph(loss=bw.softmax_cross_entropy(y, labels), outputs={"y": y, "rows": table})
    return client.create_session(graph, bw.SGD(0.1), seed=7)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a real server, for those who ask for nothing of its own."""
    with bw.connect("embedded") as client:
        yield client.target
