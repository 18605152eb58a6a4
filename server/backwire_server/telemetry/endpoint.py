"""Serves metrics over HTTP for Prometheus to fetch."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from backwire_server.access.encryption import Encryption
from backwire_server.config import Config
from backwire_server.config_parts import Access

PATH = "/metrics"
PATIENCE = 10.0
"""Seconds from when a client connects until it must have been answered."""

MOST_CLIENTS = 8

_SLEEP = 3_600.0
"""Seconds that the server sleeps for while nobody comes; `shutdown` wakes it."""

_LOG = logging.getLogger("backwire.metrics")


@contextlib.contextmanager
def serving(settings: Config, expose: Callable[[], bytes]) -> Iterator[None]:
    """Serves metrics in the block where the settings want that; raises OSError, ConfigError."""
    if settings.metrics_listen is None:
        yield
        return
    endpoint = MetricsEndpoint(settings.metrics_listen, expose, settings.access)
    _LOG.info("metrics on %s%s", endpoint.address, PATH)
    try:
        yield
    finally:
        endpoint.close()


class MetricsEndpoint:
    """Answers `GET /metrics`, encrypted where the server is, until `close`.

    Attributes:
        address: `HOST:PORT`, with the port that was found when 0 was asked for.
    """

    def __init__(self, listen: str, expose: Callable[[], bytes], access: Access, *, patience: float = PATIENCE) -> None:
        """Serves what `expose` returns, which is called by several threads; raises OSError, ConfigError.

        The files of the certificate are looked at for each client, as those of the server are.
        """
        host, _, port = listen.rpartition(":")
        secure = None
        if access.tls_certificate is not None and access.tls_key is not None:
            secure = Encryption("metrics", Path(access.tls_certificate), Path(access.tls_key))
        try:
            self._server = _Server((host.strip("[]"), int(port)), _handler(expose), secure, patience)
        except OSError as error:
            raise OSError(f"cannot serve metrics on {listen}: {error}; choose another --metrics-listen") from None
        self.address = f"{host}:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, args=(_SLEEP,), name="backwire-metrics", daemon=True
        ).start()

    def close(self) -> None:
        """Stops to serve."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Has a thread for each of a few clients, none of which can keep it for longer than its time."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        secure: Encryption | None,
        patience: float,
    ) -> None:
        self._room = threading.Semaphore(MOST_CLIENTS)
        self._secure = secure
        self._patience = patience
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def shutdown(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        super().shutdown()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()  # there is no thread that would
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        connection = request.dup()
        late = threading.Timer(self._patience, _cut, [connection])
        late.daemon = True
        late.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            late.cancel()
            connection.close()
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._secure is None:
            super().finish_request(request, client_address)
            return
        with self._secure.wrap(request) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leaves a client alone that went, or spoke no HTTP."""


def _cut(connection: socket.socket) -> None:
    """Ends a connection, whoever waits for it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _handler(expose: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self.send_error(404, f"there is only {PATH}")
                return
            body = expose()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Logs nothing: it would fill the log with fetches."""

    return Handler
