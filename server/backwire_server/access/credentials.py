"""Certificates of a server, and of the authority that its clients' must come from, taken up again when they change."""

import contextlib
import logging
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import grpc

from backwire_server.access.encryption import lenient
from backwire_server.access.files import Stamp, stamp, warn_if_exposed
from backwire_server.access.validity import Reminder
from backwire_server.config_values import ConfigError

_LOG = logging.getLogger("backwire.tls")


def server_credentials(certificate: Path, key: Path, client_ca: Path | None = None) -> grpc.ServerCredentials:
    """Returns credentials for one port of a server, threaded or asynchronous.

    The files are PEM: the server's certificate with those that lead to its authority, its key, and the certificates of
    the authorities that clients' certificates must come from. With these, a client without a certificate is refused.
    Before each connection the files are looked at: the connection gets what they have, or, when that cannot be used,
    what they had before, and an error is logged. Connections that exist go on. A certificate that has expired, or will
    soon, is warned of once a day while connections come. gRPC opens no second port with the same credentials.

    Raises ConfigError for files that do not go together, and OSError for one that cannot be read.
    """
    files = _Files(certificate, key, client_ca)
    first = files.read()
    # The type of the callback in the stubs leaves out None, which means that nothing changed.
    return grpc.dynamic_ssl_server_credentials(
        first,
        files.fetch,  # type: ignore[arg-type]
        require_client_authentication=client_ca is not None,
    )


class _Files:
    """The files of one port, which tell whether they have changed."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._paths = [certificate, key, *([] if client_ca is None else [client_ca])]
        self._lock = threading.Lock()
        self._stamp = stamp(self._paths)
        self._reminder = Reminder(certificate)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what the files have if they have changed and can be used, and otherwise None."""
        with self._lock:
            found = stamp(self._paths)
            if found == self._stamp:
                self._reminder.look(datetime.now(UTC))
                return None
            self._stamp = found
            try:
                changed = self.read()
            except (OSError, ValueError) as error:
                _LOG.error("the certificates stay as they were, since the changed files cannot be used: %s", error)
                return None
            _LOG.info("%s: new connections get the new certificate", self._certificate)
            return changed

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Returns what the files have, after OpenSSL has found that it goes together, and logs what to mend."""
        contents = [path.read_bytes() for path in self._paths]
        self._check()
        if contents != [path.read_bytes() for path in self._paths]:
            raise ConfigError(f"{self._certificate} and its key changed while they were read; leave them as they are")
        warn_if_exposed(self._key, _LOG)
        certificate, key, *roots = contents
        self._reminder.take(certificate, datetime.now(UTC))
        return grpc.ssl_server_certificate_configuration([(key, certificate)], *roots)

    def _check(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password="")  # never ask for one at a terminal
        except (ssl.SSLError, ValueError):
            raise ConfigError(
                f"{self._certificate} and {self._key} are no certificate and its key; both must be PEM, belong "
                "together, and not be encrypted"
            ) from None
        if self._client_ca is not None:
            with contextlib.suppress(ssl.SSLError):
                context.load_verify_locations(self._client_ca)
            if not context.cert_store_stats()["x509"]:
                raise ConfigError(f"{self._client_ca} has no certificate of an authority; it must be PEM")


@dataclass(frozen=True, slots=True)
class PeerCertificates:
    """What a server shows to other servers that it calls, and by which authorities it knows them."""

    certificate: Path
    key: Path
    authorities: Path | None

    @classmethod
    def of(cls, certificate: str | None, key: str | None, authorities: str | None) -> Self | None:
        """Returns those of a server with these files, PEM; None for one that does not encrypt.

        Without authorities, those of the system are good.
        """
        if certificate is None or key is None:
            return None
        return cls(Path(certificate), Path(key), None if authorities is None else Path(authorities))

    @property
    def stamp(self) -> Stamp:
        """What changes with the files; new connections take new credentials then."""
        return stamp([self.certificate, self.key, *([] if self.authorities is None else [self.authorities])])

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns credentials for a connection; raises OSError for a file that cannot be read."""
        roots = None if self.authorities is None else self.authorities.read_bytes()
        return grpc.ssl_channel_credentials(roots, self.key.read_bytes(), self.certificate.read_bytes())

    def context(self) -> ssl.SSLContext:
        """Returns what does the same for connections that are no gRPC; raises OSError for files that cannot be used."""
        context = ssl.create_default_context(cafile=self.authorities)
        context.load_cert_chain(self.certificate, self.key, password="")
        lenient(context)
        return context
