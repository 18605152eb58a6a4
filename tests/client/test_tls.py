"""Encrypted connections, with a certificate of our own for backwire.test."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

import backwire as bw
from backwire_api.v1 import gradient_service_pb2_grpc as service_grpc

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

TLS = Path(__file__).parent / "tls"
CERTIFICATE, KEY = (TLS / "server.pem").read_bytes(), (TLS / "server.key").read_bytes()
ONCE = bw.Retry(attempts=1)


def serve(service: "FakeService", *, ask_clients: bool) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    service_grpc.add_GradientServiceServicer_to_server(service, server)
    credentials = grpc.ssl_server_credentials(
        [(KEY, CERTIFICATE)], CERTIFICATE if ask_clients else None, require_client_auth=ask_clients
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def secure_target(service: "FakeService") -> Iterator[str]:
    yield from serve(service, ask_clients=False)


@pytest.fixture
def mutual_target(service: "FakeService") -> Iterator[str]:
    yield from serve(service, ask_clients=True)


def test_a_trusted_server_is_spoken_to_and_gets_the_token(secure_target: str, service: "FakeService") -> None:
    tls = bw.TLS(root_certificates=CERTIFICATE, server_name="backwire.test")
    with bw.connect(secure_target, tls=tls, token="secret") as client:
        assert list(client.sessions()) == []
    assert service.metadata[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "tls",
    [
        True,
        bw.TLS(server_name="backwire.test"),
        bw.TLS(root_certificates=CERTIFICATE),
        bw.TLS(root_certificates=CERTIFICATE, server_name="elsewhere.test"),
        None,
    ],
    ids=["system authorities", "unknown authority", "address not in certificate", "another name", "plain text"],
)
def test_others_are_not(tls: bw.TLS | bool | None, secure_target: str, service: "FakeService") -> None:
    with bw.connect(secure_target, tls=tls, retry=ONCE) as client, pytest.raises(bw.UnavailableError):
        list(client.sessions())
    assert not service.requests


def test_a_client_can_identify_itself(mutual_target: str) -> None:
    known = bw.TLS(
        root_certificates=CERTIFICATE, server_name="backwire.test", private_key=KEY, certificate_chain=CERTIFICATE
    )
    with bw.connect(mutual_target, tls=known) as client:
        assert list(client.sessions()) == []
    stranger = bw.TLS(root_certificates=CERTIFICATE, server_name="backwire.test")
    with bw.connect(mutual_target, tls=stranger, retry=ONCE) as client, pytest.raises(bw.UnavailableError):
        list(client.sessions())
