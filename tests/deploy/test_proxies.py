"""A client trains through HAProxy and Envoy, which end TLS, and a server that does not serve gets no calls."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_status import rpc_status
from tests.deploy.proxies import BEGINNING, IMPATIENT, LISTEN, PATIENT, Envoy, Haproxy, running
from tests.waiting import until

import backwire as bw
from backwire._wire._failures import from_rpc_error
from backwire._wire._transport_base import PIPELINE
from backwire_api.reasons import DOMAIN, Reason

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
KINDS = [pytest.param(Haproxy, id="haproxy"), pytest.param(Envoy, id="envoy")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_is_valid(kind: type[Haproxy | Envoy], certificates: Path, tmp_path: Path) -> None:
    proxy = kind(tmp_path, certificates, LISTEN, 443)
    ended = subprocess.run(proxy.check, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "[WARNING]" not in ended.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_trains_through_it(
    kind: type[Haproxy | Envoy], certificates: Path, backend: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    trust = bw.TLS(root_certificates=(certificates / "ca.crt").read_bytes())
    x = bw.input("x", ("batch", 3))
    graph = bw.graph(loss=bw.squared_error(bw.dense(x, 1, name="line"), bw.input("y", ("batch", 1))))
    data = {"x": np.ones((64, 3), np.float32), "y": np.ones((64, 1), np.float32)}
    with (
        running(kind(tmp_path, certificates, backend, port)),
        bw.connect(f"localhost:{port}", tls=trust, retry=BEGINNING) as client,
    ):
        session = client.create_session(graph, optimizer=bw.SGD(0.1), seed=1)
        calls = [session.train_step(data).loss for _ in range(5)]
        with session.pipeline() as pipeline:
            streamed = [pipeline.train_step(data) for _ in range(5)]
        losses = [*calls, *(each.result().loss for each in streamed)]
        session.close()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_server_that_serves_gets_calls(
    kind: type[Haproxy | Envoy], certificates: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    server, health = grpc.server(ThreadPoolExecutor(4)), HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    backend = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    target, trust = free_port(), grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
    with (
        running(kind(tmp_path, certificates, backend, target)),
        grpc.secure_channel(f"localhost:{target}", trust) as channel,
    ):
        health.set("", SERVING)
        until(lambda: answers(channel), 60.0, 0.1)
        health.set("", NOT_SERVING)
        until(lambda: not answers(channel), 60.0, 0.1)
        health.set("", SERVING)
        until(lambda: answers(channel), 60.0, 0.1)
    server.stop(None).wait()


class Watched(HealthServicer):
    """The health of a server, which says nothing more once it is `silent`."""

    def __init__(self) -> None:
        super().__init__()
        self.silent, self.over = threading.Event(), threading.Event()

    def Check(self, request: Any, context: Any) -> Any:
        if self.silent.is_set():
            self.over.wait()
        return super().Check(request, context)


@dataclass
class Work:
    """A call through HAProxy that its server has begun, and ends when it is `done`."""

    channel: grpc.Channel
    call: Any
    health: Watched
    done: threading.Event


@pytest.fixture
def begin(certificates: Path, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[[str], Work]]:
    """Begins a call, behind checks that wait for their answers for so long."""
    begun, done, health = threading.Event(), threading.Event(), Watched()

    def work(_: bytes, __: grpc.ServicerContext) -> bytes:
        begun.set()
        done.wait()
        return b"done"

    server = grpc.server(ThreadPoolExecutor(64))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    methods: dict[str, Any] = {"Work": grpc.unary_unary_rpc_method_handler(work)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests", methods),))
    backend = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    health.set("", SERVING)
    server.start()
    target, trust = free_port(), grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
    with ExitStack() as stack:

        def begin(patience: str) -> Work:
            stack.enter_context(running(Haproxy(tmp_path, certificates, backend, target, patience)))
            channel = stack.enter_context(grpc.secure_channel(f"localhost:{target}", trust))
            until(lambda: answers(channel), 60.0, 0.1)
            way: Any = channel.unary_unary("/tests/Work")
            call = way.future(b"", timeout=60)
            until(begun.is_set)
            return Work(channel, call, health, done)

        yield begin
    done.set()
    health.over.set()
    server.stop(None).wait()


def test_a_call_goes_on_while_its_server_drains(begin: Callable[[str], Work]) -> None:
    work = begin(PATIENT)
    work.health.set("", NOT_SERVING)
    until(lambda: not answers(work.channel), 60.0, 0.1)
    work.done.set()
    assert work.call.result() == b"done"


def test_a_call_ends_when_its_server_answers_nothing(begin: Callable[[str], Work]) -> None:
    work = begin(IMPATIENT)
    work.health.silent.set()
    assert work.call.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", KINDS)
def test_why_a_stream_is_refused_is_told_while_its_client_has_more_to_send(
    kind: type[Haproxy | Envoy], certificates: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    def refuse(_: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        status = status_pb2.Status(code=grpc.StatusCode.PERMISSION_DENIED.value[0], message="not you; ask for more")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=Reason.PERMISSION_DENIED, domain=DOMAIN))
        context.abort_with_status(rpc_status.to_status(status))
        yield b""

    server, health = grpc.server(ThreadPoolExecutor(4)), HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    methods: dict[str, Any] = {"Pipeline": grpc.stream_stream_rpc_method_handler(refuse)}
    handler = grpc.method_handlers_generic_handler("backwire_api.v1.GradientService", methods)
    server.add_generic_rpc_handlers((handler,))
    backend = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    health.set("", SERVING)
    server.start()
    target, trust, over = free_port(), (certificates / "ca.crt").read_bytes(), threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"one of several"
        over.wait()

    with (
        running(kind(tmp_path, certificates, backend, target)),
        grpc.secure_channel(f"localhost:{target}", grpc.ssl_channel_credentials(trust)) as channel,
    ):
        until(lambda: answers(channel), 60.0, 0.1)
        call: Any = channel.stream_stream(PIPELINE)
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                list(call(requests(), timeout=30))
            with pytest.raises(bw.PermissionDeniedError, match="not you"):
                raise from_rpc_error(caught.value, None)
        over.set()
    server.stop(None).wait()


def answers(channel: grpc.Channel) -> bool:
    """Tells whether a call gets through; the server itself would answer it whatever its status."""
    call = health_pb2_grpc.HealthStub(channel).Check.future(health_pb2.HealthCheckRequest(), timeout=30)
    code = call.code()  # waits for the end
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return bool(code == grpc.StatusCode.OK)
