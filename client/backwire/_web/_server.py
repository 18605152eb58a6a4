"""The HTTP server of the page: for this machine alone, for those who have the key, and for reading only."""

import contextlib
import hmac
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl

from backwire._cli import _options
from backwire._errors import BackwireError, InvalidRequestError
from backwire._errors_session import NotFoundError
from backwire._web._answers import Answers

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds from when a browser connects until it must have been answered."""

MOST_CLIENTS = 16

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in ("page.js", "curves.js", "graph.js")},
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_JSON = "application/json"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@contextlib.contextmanager
def serving(answers: Answers, port: int = 0, *, patience: float = PATIENCE) -> Iterator[str]:
    """Serves the page in the block, to which it gives the address with the key; port 0 means one that is free.

    Raises InvalidRequestError when the port cannot be had.
    """
    key = secrets.token_urlsafe(24)
    try:
        server = _Server(port, answers, key, patience)
    except OSError as error:
        raise InvalidRequestError(f"port {port} cannot be had: {error.strerror}; choose another --port") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="backwire-web", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/#key={key}"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Gives each browser a thread, as long as there are few, and none more than its time."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, answers: Answers, key: str, patience: float) -> None:
        self.answers, self.key = answers, key
        self._patience = patience
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Binds without asking what this host is called, for which a name server may have to answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()  # no thread will
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        cut = threading.Timer(self._patience, _end, [request])
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells of a mistake of ours, and nothing of a browser that went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answers with a file, or for those who have the key with a document."""
        path, _, query = self.path.partition("?")
        if not self._is_meant():
            self._refuse(421, f"this is no server of that name; use http://{HOST}:{self.server.server_port}/")
        elif path in _FILES:
            name, kind = _FILES[path]
            self._send(200, kind, (resources.files(__package__) / "static" / name).read_bytes())
        elif path not in self.server.answers.by_path:
            self._refuse(404, "there is no such page; begin at /")
        elif not self._has_key():
            self._refuse(401, "the key is missing or wrong; open the address that `backwire web` printed")
        else:
            self._answer(path, dict(parse_qsl(query)))

    def _answer(self, path: str, query: dict[str, str]) -> None:
        try:
            document = self.server.answers.by_path[path](query)
        except NotFoundError as error:
            self._refuse(404, str(error))
        except InvalidRequestError as error:
            self._refuse(400, str(error))
        except BackwireError as error:
            self._refuse(502, str(error))
        else:
            self._send(200, _JSON, _encoded(document))

    def _is_meant(self) -> bool:
        """Tells whether the request names this server, as one by a page whose name was made to lead here does not."""
        port = self.server.server_port
        return self.headers.get("Host", "") in {f"{HOST}:{port}", f"localhost:{port}"}

    def _has_key(self) -> bool:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(given, f"Bearer {self.server.key}".encode())

    def _refuse_method(self) -> None:
        self._refuse(405, "this page is for looking alone; use GET")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _refuse_method  # noqa: N815

    def _refuse(self, status: int, text: str) -> None:
        self._send(status, _JSON, _encoded({"error": text}))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if status == 405:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuses what is no request of HTTP as all else is refused."""
        self._refuse(code, f"{message or 'this is no request'}; use a browser")

    def version_string(self) -> str:
        """Tells no versions."""
        return "backwire"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Logs nothing: a page asks every second."""


def _encoded(document: Any) -> bytes:
    return _options.as_json(document, indent=None).encode()
