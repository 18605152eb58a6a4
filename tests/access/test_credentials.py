"""A server takes up new certificates while it serves, and lets in only clients whose authority it knows."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.access.conftest import Authority, Pair, trusting

from backwire_server.access.credentials import server_credentials
from backwire_server.config_values import ConfigError

Start = Callable[[grpc.ServerCredentials], int]


class Files:
    """The PEM files of a server."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.client_ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def put(self, path: Path, content: bytes) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.chmod(0o600)
        fresh.replace(path)

    def put_pair(self, pair: Pair) -> None:
        self.put(self.key, pair.key)
        self.put(self.certificate, pair.certificate)


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    found = Files(tmp_path)
    found.put_pair(authority.issue("first"))
    return found


def start_threaded(credentials: grpc.ServerCredentials, ended: ExitStack) -> int:
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    ended.callback(lambda: server.stop(None).wait())
    return port


def start_asynchronous(credentials: grpc.ServerCredentials, ended: ExitStack) -> int:
    loop = asyncio.new_event_loop()

    async def start() -> tuple[aio.Server, int]:
        server = aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        return server, port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    ended.callback(loop.close)
    ended.callback(thread.join)
    ended.callback(loop.call_soon_threadsafe, loop.stop)
    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    ended.callback(lambda: asyncio.run_coroutine_threadsafe(server.stop(None), loop).result())
    return port


@pytest.fixture(params=[start_threaded, start_asynchronous], ids=["grpc.server", "grpc.aio.server"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    with ExitStack() as ended:
        yield lambda credentials: request.param(credentials, ended)


def common_name(port: int, authority: Authority) -> str:
    """Returns the name in the certificate that a new connection gets."""
    context = trusting(authority.certificate)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="backwire.test") as encrypted,
    ):
        certificate = encrypted.getpeercert()
    assert certificate is not None
    (((_, name),),) = certificate["subject"]  # type: ignore[misc, str-unpack]
    return str(name)


def open_channel(port: int, authority: Authority, pair: Pair | None = None) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        authority.certificate, pair.key if pair else None, pair.certificate if pair else None
    )
    options = [("grpc.ssl_target_name_override", "backwire.test"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)


def call(channel: grpc.Channel) -> None:
    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)


def refused(port: int, authority: Authority, pair: Pair | None) -> bool:
    with open_channel(port, authority, pair) as channel:
        try:
            call(channel)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return True
    return False


def test_new_connections_get_the_new_certificate_and_old_ones_live_on(
    start: Start, files: Files, authority: Authority
) -> None:
    port = start(server_credentials(files.certificate, files.key))
    assert common_name(port, authority) == "first"
    with open_channel(port, authority) as old:
        call(old)
        for name in ("second", "third"):
            files.put_pair(authority.issue(name))
            assert common_name(port, authority) == name
            assert common_name(port, authority) == name, "also when nothing has changed since"
            call(old)


@pytest.mark.parametrize("wrong", ["another key", "no PEM", "nothing"])
def test_a_wrong_new_pair_leaves_the_old_one_and_is_logged(
    wrong: str, start: Start, files: Files, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    port = start(server_credentials(files.certificate, files.key))
    second = authority.issue("second")
    files.put(files.certificate, second.certificate)
    if wrong == "no PEM":
        files.put(files.key, b"no key")
    elif wrong == "nothing":
        files.key.unlink()
    assert common_name(port, authority) == "first"
    assert common_name(port, authority) == "first"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(files.key) in errors[0]
    files.put(files.key, second.key)
    assert common_name(port, authority) == "second"


def test_only_clients_of_the_authority_come_in(start: Start, files: Files, authority: Authority) -> None:
    clients = Authority("of clients")
    files.put(files.client_ca, clients.certificate)
    port = start(server_credentials(files.certificate, files.key, files.client_ca))
    assert not refused(port, authority, clients.issue("known"))
    assert refused(port, authority, None)
    assert refused(port, authority, clients.issue("expired", days=-1))
    assert refused(port, authority, Authority("of clients").issue("foreign"))
    assert refused(port, authority, authority.issue("of the server's own authority"))


def test_the_authority_of_clients_is_rotated_too(start: Start, files: Files, authority: Authority) -> None:
    old, new = Authority("old"), Authority("new")
    files.put(files.client_ca, old.certificate)
    port = start(server_credentials(files.certificate, files.key, files.client_ca))
    early, late = old.issue("early"), new.issue("late")
    assert (refused(port, authority, early), refused(port, authority, late)) == (False, True)
    files.put(files.client_ca, old.certificate + new.certificate)
    assert (refused(port, authority, early), refused(port, authority, late)) == (False, False)
    files.put(files.client_ca, new.certificate)
    assert (refused(port, authority, early), refused(port, authority, late)) == (True, False)
    files.put(files.client_ca, b"")
    assert (refused(port, authority, early), refused(port, authority, late)) == (True, False)


def test_a_server_does_not_start_with_wrong_files(files: Files, authority: Authority) -> None:
    with pytest.raises(FileNotFoundError):
        server_credentials(files.certificate, files.key, files.client_ca)
    files.put(files.client_ca, b"nothing of use")
    with pytest.raises(ConfigError, match=r"ca\.crt has no certificate"):
        server_credentials(files.certificate, files.key, files.client_ca)
    files.put(files.key, authority.issue("another").key)
    with pytest.raises(ConfigError, match=r"tls\.crt and .*tls\.key are no certificate and its key"):
        server_credentials(files.certificate, files.key)


@pytest.mark.parametrize(("days", "told"), [(-2, "expired on"), (2, "expires on"), (20, None)])
def test_a_certificate_that_has_expired_or_will_soon_is_warned_of(
    days: int, told: str | None, start: Start, files: Files, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "backwire.tls")
    port = start(server_credentials(files.certificate, files.key))
    assert common_name(port, authority) == "first"
    second = authority.issue("second", days=days)
    end = x509.load_pem_x509_certificate(second.certificate).not_valid_after_utc
    files.put_pair(second)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port)) as plain, contextlib.suppress(ssl.SSLError):
            encrypting().wrap_socket(plain).close()
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == [
        f"{files.certificate}: new connections get the new certificate"
    ]
    assert len(found) == (told is not None)
    assert all(f"{files.certificate} {told} {end:%Y-%m-%d %H:%M:%S}Z" in each for each in found)


def encrypting() -> ssl.SSLContext:
    """Returns a context of a client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def test_a_key_that_everybody_may_read_is_warned_of(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.key.chmod(0o644)
    server_credentials(files.certificate, files.key)
    assert [record.getMessage() for record in caplog.records] == [
        f"{files.key} can be read by every user of this machine; run: chmod o= {files.key}"
    ]
