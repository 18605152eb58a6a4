"""Serves metrics over HTTP for Prometheus to fetch."""

import contextlib
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from backwire_server.config import Access, Config
from backwire_server.config_values import ConfigError

PATH = "/metrics"
PATIENCE = 5.0
"""Seconds that a client may take to send its request and to take each part of the answer."""

MOST_CLIENTS = 8

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

    def __init__(self, listen: str, expose: Callable[[], bytes], access: Access) -> None:
        """Serves what `expose` returns, which is called by several threads; raises OSError, ConfigError."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)), _handler(expose))
        except OSError as error:
            raise OSError(f"cannot serve metrics on {listen}: {error}; choose another --metrics-listen") from None
        if access.tls_certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.load_cert_chain(access.tls_certificate, access.tls_key, password="")
            except (ssl.SSLError, ValueError) as error:
                self._server.server_close()
                raise ConfigError(f"metrics cannot be encrypted with {access.tls_certificate}: {error}") from None
            self._server.context = context
        self.address = f"{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="backwire-metrics", daemon=True).start()

    def close(self) -> None:
        """Stops to serve."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Has a thread for each of a few clients, none of which can keep it for long."""

    daemon_threads = True
    context: ssl.SSLContext | None = None

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.Semaphore(MOST_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: object, client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()

    def finish_request(self, request: object, client_address: object) -> None:
        request.settimeout(PATIENCE)  # type: ignore[attr-defined]
        if self.context is None:
            super().finish_request(request, client_address)  # type: ignore[arg-type]
            return
        with self.context.wrap_socket(request, server_side=True) as secured:  # type: ignore[arg-type]
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Leaves a client alone that went, or spoke no HTTP."""


def _handler(expose: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

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
