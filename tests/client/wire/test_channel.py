"""Where a client connects to, and what it shows of itself there."""

from typing import TYPE_CHECKING

import pytest

import backwire as bw
from backwire._wire._channel import is_local, with_port

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService


@pytest.mark.parametrize("token", ["", "of a file\n", "tok\ten", "schlüssel"])
def test_a_token_that_no_header_carries_is_refused_before_anything_is_sent(token: str) -> None:
    with pytest.raises(bw.InvalidRequestError, match="strip it") as refused:
        bw.connect("127.0.0.1:1", token=token)
    assert refused.value.field == "token"


def test_the_token_travels_as_bearer_metadata(target: str, service: "FakeService") -> None:
    with bw.connect(target, token="secret") as client:
        list(client.sessions())
    assert service.metadata[0]["authorization"] == "Bearer secret"


def test_a_token_is_refused_where_others_could_listen() -> None:
    with pytest.raises(bw.InvalidRequestError, match="clear text; pass tls=True"):
        bw.connect("example.org:50051", token="secret")
    bw.connect("example.org:50051", token="secret", tls=True).close()
    bw.connect("unix:/tmp/x.sock", token="secret").close()
    with pytest.raises(bw.InvalidRequestError, match="private already"):
        bw.connect("embedded", token="secret")


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:1", True),
        ("127.0.0.5:1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv6:[::1]:1", True),
        ("unix:relative", True),
        ("unix-abstract:name", True),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
        ("dns:///example.org", False),
        ("xds:///localhost", False),
    ],
)
def test_loopback_and_unix_targets_are_local(target: str, local: bool) -> None:
    assert is_local(target) is local


def test_a_host_without_port_gets_the_default_one() -> None:
    assert with_port("gpu-7.example.org") == "gpu-7.example.org:50051"
    assert with_port("localhost:1") == "localhost:1"
    assert with_port("unix:/a/b") == "unix:/a/b"
    with pytest.raises(bw.InvalidRequestError, match="no target"):
        with_port("")
    for port in (0, 65_536, 99_999):
        with pytest.raises(bw.InvalidRequestError, match="no port of 1 to 65535"):
            with_port(f"localhost:{port}")


def test_tls_wants_key_and_certificate_together_and_shows_neither() -> None:
    with pytest.raises(bw.InvalidRequestError, match="both or none"):
        bw.TLS(private_key=b"key")
    assert "secret" not in repr(bw.TLS(private_key=b"secret", certificate_chain=b"chain"))
