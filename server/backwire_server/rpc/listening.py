"""Where a gRPC server listens, and how it treats connections."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from backwire_server.access.credentials import server_credentials
from backwire_server.config_parts import Access, Capacity
from backwire_server.config_values import socket_path
from backwire_server.sessions.limits import Limits

FAREWELL_SECONDS = 1.0
"""How long a server that ends waits for its last answers and refusals to arrive; many would else become CANCELLED."""

MOST_STREAMS = 1_000
"""The most calls on a connection, where the server does not take on more; a client has others wait."""


def bind(server: Any, listen: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Has a gRPC server, threaded or asynchronous, listen on `HOST:PORT` or `unix:PATH`.

    It encrypts where there are credentials, but for a unix socket, which only this user can open.

    Returns the address, with the port that was found when 0 was asked for. Raises OSError when it cannot be had.
    """
    local = listen.startswith("unix:")
    if local:
        _check_free(socket_path(listen))
    try:
        if local:
            with _private():
                port = server.add_insecure_port(listen)
        elif credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: {error}; choose another address") from None
    return listen if local else f"{listen.rpartition(':')[0]}:{port}"


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """Lets only this user open what is made in the file system meanwhile, by any thread."""
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


def credentials_of(access: Access) -> grpc.ServerCredentials | None:
    """Returns what encrypts, if anything does; raises OSError or ConfigError for files that cannot be used."""
    if access.tls_certificate is None or access.tls_key is None:
        return None
    authority = None if access.client_ca is None else Path(access.client_ca)
    return server_credentials(Path(access.tls_certificate), Path(access.tls_key), authority)


def _check_free(path: str) -> None:
    """Raises OSError when the path is taken, other than by the socket of a server that has ended."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(f"cannot listen on unix:{path}: it is a file; choose another path")
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect(path)
            raise OSError(f"cannot listen on unix:{path}: a server listens there; choose another path")


def options(limits: Limits, capacity: Capacity) -> list[tuple[str, int]]:
    """Returns the options of a gRPC server that holds its clients to these limits."""
    silence = round(capacity.keepalive * 1_000)
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # what is too large was refused before it changed anything
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share its clients
        ("grpc.keepalive_time_ms", silence),  # a peer that vanished without a word is noticed
        ("grpc.keepalive_timeout_ms", min(silence, 20_000)),
        ("grpc.http2.ping_timeout_ms", min(silence, 20_000)),  # without it, a ping has a minute, whatever is said above
        ("grpc.server_handshake_timeout_ms", 10_000),  # for a peer that connects, and does not say what it wants
        ("grpc.max_allowed_incoming_connections", capacity.max_connections),
        ("grpc.max_concurrent_streams", max(MOST_STREAMS, capacity.max_concurrent)),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
