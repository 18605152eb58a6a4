"""Encrypted connections, with a certificate of our own for backwire.test."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.access.conftest import Authority, Pair

import backwire as bw
from backwire_api.v1 import gradient_service_pb2_grpc as service_grpc

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

TLS = Path(__file__).parents[1] / "tls"
CERTIFICATE, KEY = (TLS / "server.pem").read_bytes(), (TLS / "server.key").read_bytes()
OURS = Pair(CERTIFICATE, KEY)
ONCE = bw.Retry(attempts=1)


def serve(service: "FakeService", *, ask_clients: bool, pair: Pair = OURS) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    service_grpc.add_GradientServiceServicer_to_server(service, server)
    credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], CERTIFICATE if ask_clients else None, require_client_auth=ask_clients
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
    ("tls", "remedy"),
    [
        (True, "trust its authority here"),
        (bw.TLS(server_name="backwire.test"), "trust its authority here"),
        (bw.TLS(root_certificates=CERTIFICATE), "is for another host"),
        (bw.TLS(root_certificates=CERTIFICATE, server_name="elsewhere.test"), "is for another host"),
        (None, "one that encrypts wants tls"),
    ],
    ids=["system authorities", "unknown authority", "address not in certificate", "another name", "plain text"],
)
def test_others_are_not(tls: bw.TLS | bool | None, remedy: str, secure_target: str, service: "FakeService") -> None:
    with bw.connect(secure_target, tls=tls, retry=ONCE) as client, pytest.raises(bw.UnavailableError, match=remedy):
        list(client.sessions())
    assert not service.requests


@pytest.mark.parametrize(
    ("tls", "remedy"),
    [
        (bw.TLS(root_certificates=CERTIFICATE), "what answers does not encrypt"),
        (bw.TLS(root_certificates=KEY), "are no PEM"),
    ],
)
def test_what_cannot_encrypt_is_told_what_to_do(tls: bw.TLS, remedy: str, target: str) -> None:
    with bw.connect(target, tls=tls, retry=ONCE) as client, pytest.raises(bw.UnavailableError, match=remedy):
        list(client.sessions())


def test_a_certificate_that_has_expired_is_to_be_renewed(service: "FakeService") -> None:
    authority = Authority("ours")
    tls = bw.TLS(root_certificates=authority.certificate, server_name="backwire.test")
    with (
        contextmanager(serve)(service, ask_clients=False, pair=authority.issue("server", days=-1)) as target,
        bw.connect(target, tls=tls, retry=ONCE) as client,
        pytest.raises(bw.UnavailableError, match="have the server's certificate renewed, or"),
    ):
        list(client.sessions())


def test_the_path_of_a_file_is_no_certificate() -> None:
    with pytest.raises(bw.InvalidRequestError, match="root_certificates is str; give what the file holds, as bytes"):
        bw.TLS(root_certificates="ca.pem")  # type: ignore[arg-type]


def test_a_client_can_identify_itself(mutual_target: str) -> None:
    known = bw.TLS(
        root_certificates=CERTIFICATE, server_name="backwire.test", private_key=KEY, certificate_chain=CERTIFICATE
    )
    with bw.connect(mutual_target, tls=known) as client:
        assert list(client.sessions()) == []
    stranger = bw.TLS(root_certificates=CERTIFICATE, server_name="backwire.test")
    with bw.connect(mutual_target, tls=stranger, retry=ONCE) as client, pytest.raises(bw.UnavailableError):
        list(client.sessions())
