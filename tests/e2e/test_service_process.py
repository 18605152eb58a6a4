"""The server as a process: how it starts, how it ends, and who may reach it."""

import json
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.waiting import until

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc
from backwire_api.v1 import graph_pb2, tensor_pb2

GRAPH = graph_pb2.Graph(inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT32)], outputs={"x": "x"})


@pytest.fixture
def connect() -> Iterator[Any]:
    """Opens channels, and closes them."""
    channels: list[grpc.Channel] = []

    def open_channel(address: str) -> grpc.Channel:
        channels.append(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
        return channels[-1]

    yield open_channel
    for channel in channels:
        channel.close()


def create(channel: grpc.Channel) -> str:
    stub = pb_grpc.GradientServiceStub(channel)
    return stub.CreateSession(pb.CreateSessionRequest(graph=GRAPH), timeout=20).session.session_id


def health(channel: grpc.Channel) -> int:
    return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_serves_and_ends_orderly(start_server: Any, connect: Any, number: int) -> None:
    server = start_server()
    channel = connect(server.wait_until_ready())
    assert health(channel) == health_pb2.HealthCheckResponse.SERVING
    create(channel)
    server.signal(number)
    assert server.wait() == 0
    assert server.further_lines == []
    for line in server.errors:
        json.loads(line)


class OpenUpload:
    """A SetParameters call that a server with one place for streams has in progress, until `finish`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._finished = threading.Event()
        self._session = create(channel)
        stub = pb_grpc.GradientServiceStub(channel)
        self.call = stub.SetParameters.future(self._requests())
        for _ in range(1_000):
            download: Any = stub.GetParameters(pb.GetParametersRequest(session_id=self._session), timeout=20)
            if download.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                return
            time.sleep(0.01)
        raise AssertionError("the upload never arrived")

    def _requests(self) -> Iterator[pb.SetParametersRequest]:
        yield pb.SetParametersRequest(session_id=self._session)
        self._finished.wait(60)
        yield pb.SetParametersRequest(last=True)

    def finish(self) -> int:
        self._finished.set()
        return int(self.call.result(20).step)


@pytest.fixture
def open_upload() -> Iterator[Callable[[grpc.Channel], OpenUpload]]:
    opened: list[OpenUpload] = []

    def begin(channel: grpc.Channel) -> OpenUpload:
        opened.append(OpenUpload(channel))
        return opened[-1]

    yield begin
    for upload in opened:
        upload._finished.set()


def test_a_call_in_progress_is_drained(start_server: Any, connect: Any, open_upload: Any) -> None:
    server = start_server("--max-concurrent-streams", "1")
    channel = connect(server.wait_until_ready())
    upload = open_upload(channel)
    server.signal()
    until(lambda: health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING)
    with pytest.raises(grpc.RpcError) as caught:
        create(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.process.poll() is None
    assert upload.finish() == 0
    assert server.wait() == 0


def test_it_ends_within_its_grace_and_still_orderly(start_server: Any, connect: Any, open_upload: Any) -> None:
    server = start_server("--max-concurrent-streams", "1", "--grace", "300ms")
    upload = open_upload(connect(server.wait_until_ready()))
    server.signal()
    assert server.wait() == 0
    with pytest.raises(grpc.RpcError):
        upload.finish()


def test_a_second_signal_ends_it_at_once(start_server: Any, connect: Any, open_upload: Any) -> None:
    server = start_server("--max-concurrent-streams", "1", "--grace", "10m")
    channel = connect(server.wait_until_ready())
    upload = open_upload(channel)
    server.signal()
    until(lambda: health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING)
    server.signal()
    assert server.wait() == 128 + signal.SIGTERM
    with pytest.raises(grpc.RpcError):
        upload.finish()


def test_a_signal_reaches_the_one_thread_that_waits_for_it(start_server: Any, connect: Any, open_upload: Any) -> None:
    server = start_server("--max-concurrent-streams", "1", "--grace", "10m")
    open_upload(connect(server.wait_until_ready()))
    blocked: list[int] = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            blocked += (int(mask, 16) for mask in re.findall(r"SigBlk:\s*(\w+)", (task / "status").read_text()))
    for number in (signal.SIGTERM, signal.SIGINT):
        assert sum(not mask >> number - 1 & 1 for mask in blocked) == 1, "the system may give it to any of these"


def test_it_ends_with_its_parent_when_asked_to(start_server: Any) -> None:
    server = start_server("--exit-with-parent")
    server.wait_until_ready()
    server.process.stdin.close()
    assert server.wait() == 0


def test_it_outlives_its_standard_input_otherwise(start_server: Any, connect: Any) -> None:
    server = start_server()
    channel = connect(server.wait_until_ready())
    server.process.stdin.close()
    time.sleep(0.3)
    assert health(channel) == health_pb2.HealthCheckResponse.SERVING


def test_it_is_configured_by_environment_and_flags(start_server: Any, connect: Any) -> None:
    environment = {"BACKWIRE_LISTEN": "127.0.0.1:0", "BACKWIRE_MAX_PASSES": "3", "BACKWIRE_MAX_SESSIONS": "2"}
    server = start_server("--max-passes", "5", environment=environment)
    channel = connect(server.wait_until_ready())
    stub = pb_grpc.GradientServiceStub(channel)
    for _ in range(2):
        assert stub.GetSession(pb.GetSessionRequest(session_id=create(channel))).session.limits.max_passes == 5
    with pytest.raises(grpc.RpcError) as caught:
        create(channel)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_every_call_is_logged_without_its_contents_when_asked_for(start_server: Any, connect: Any) -> None:
    server = start_server("--access-log")
    channel = connect(server.wait_until_ready())
    session = create(channel)
    pb_grpc.GradientServiceStub(channel).GetSession(pb.GetSessionRequest(session_id=session))
    server.signal()
    assert server.wait() == 0
    lines = [json.loads(line) for line in server.errors]
    calls = [line for line in lines if line["logger"] == "backwire.access"]
    assert [(call["method"], call["reason"]) for call in calls] == [("CreateSession", "OK"), ("GetSession", "OK")]
    assert session not in "".join(server.errors)


def test_its_unix_socket_is_for_its_user_alone_and_goes_with_it(
    start_server: Any, connect: Any, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    server = start_server("--listen", f"unix:{path}")
    address = server.wait_until_ready()
    assert address == f"unix:{path}"
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0
    assert health(connect(address)) == health_pb2.HealthCheckResponse.SERVING
    server.signal()
    assert server.wait() == 0
    assert not path.exists()


def test_a_socket_that_a_dead_server_left_is_replaced(start_server: Any, connect: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = start_server("--listen", f"unix:{path}")
    first.wait_until_ready()
    first.signal(signal.SIGKILL)
    first.wait()
    assert path.exists()
    second = start_server("--listen", f"unix:{path}")
    assert health(connect(second.wait_until_ready())) == health_pb2.HealthCheckResponse.SERVING


def test_an_address_that_is_taken_is_refused(start_server: Any, connect: Any, tmp_path: Path) -> None:
    held = socket.create_server(("127.0.0.1", 0))
    port = held.getsockname()[1]
    path = tmp_path / "s"
    living = start_server("--listen", f"unix:{path}")
    address = living.wait_until_ready()
    (tmp_path / "file").write_text("precious")
    with held:
        for listen in (f"127.0.0.1:{port}", f"unix:{path}", f"unix:{tmp_path / 'file'}", f"unix:{tmp_path}/no/such"):
            server = start_server("--listen", listen)
            assert server.wait() == 1
            assert f"cannot listen on {listen}" in "".join(server.errors)
    assert (tmp_path / "file").read_text() == "precious"
    assert health(connect(address)) == health_pb2.HealthCheckResponse.SERVING


def test_plaintext_beyond_this_machine_is_refused(start_server: Any) -> None:
    server = start_server("--listen", "0.0.0.0:0")
    assert server.wait() == 2
    assert "--allow-plaintext" in "".join(server.errors)
