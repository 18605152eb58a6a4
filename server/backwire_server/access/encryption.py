"""Encrypts connections that are no gRPC, by the files that a server's own have, taken up again when these change."""

import contextlib
import logging
import socket
import ssl
import threading
from pathlib import Path

from backwire_server.access.files import stamp
from backwire_server.config_values import ConfigError

_LOG = logging.getLogger("backwire.tls")


class Encryption:
    """What a server encrypts accepted connections with. May be used by several threads at once."""

    def __init__(self, purpose: str, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Shows a certificate, and asks for one of these authorities where there are some; the files are PEM.

        `purpose` says in errors what the connections are for. Raises ConfigError for files that cannot be used.
        """
        self._purpose, self._certificate, self._key, self._client_ca = purpose, certificate, key, client_ca
        self._paths = [certificate, key, *([] if client_ca is None else [client_ca])]
        self._lock = threading.Lock()
        self._stamp = stamp(self._paths)
        self._context = self._load()

    def wrap(self, connection: socket.socket, *, greet: bool = True) -> ssl.SSLSocket:
        """Returns the connection, encrypted, once both sides agree; without `greet` that is left to the caller.

        The files are looked at: it gets what they have, or, when that cannot be used, what they had before, and an
        error is logged. Raises OSError when the other side does not agree.
        """
        with self._lock:
            found = stamp(self._paths)
            if found != self._stamp:
                self._stamp = found
                try:
                    self._context = self._load()
                except ConfigError as error:
                    _LOG.error("the certificate for %s stays as it was: %s", self._purpose, error)
            context = self._context
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=greet)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # so that nothing comes to who waits for no answer
        try:
            context.load_cert_chain(self._certificate, self._key, password="")
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self._purpose} cannot be encrypted with {self._certificate}: {error}; see that it and its "
                "key belong together, and that all files are PEM"
            ) from None
        lenient(context)
        return context


def lenient(context: ssl.SSLContext) -> None:
    """Has a context take the certificates that gRPC takes: newer versions of Python refuse more by themselves."""
    with contextlib.suppress(AttributeError):
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
