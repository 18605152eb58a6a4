"""docker/certificates makes what a server and its clients need, and nothing that others could read."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.deploy.files import DOCKER


@pytest.mark.parametrize("name", ["backwire", "localhost", "127.0.0.1", "other.example"])
def test_a_client_that_trusts_the_authority_trusts_the_server_by_its_names(certificates: Path, name: str) -> None:
    pair = ((certificates / "tls.key").read_bytes(), (certificates / "tls.crt").read_bytes())
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    trust = grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{port}", trust, [("grpc.ssl_target_name_override", name)]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    server.stop(None).wait()
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_directory_is_closed_to_others(certificates: Path) -> None:
    assert certificates.stat().st_mode & 0o777 == 0o700


def test_the_authority_cannot_sign_again(certificates: Path) -> None:
    assert [path.name for path in certificates.iterdir() if b"PRIVATE KEY" in path.read_bytes()] == ["tls.key"]


def test_a_directory_is_asked_for() -> None:
    ended = subprocess.run([DOCKER / "certificates"], capture_output=True, text=True, check=False)
    assert (ended.returncode, "usage" in ended.stderr) == (2, True)
