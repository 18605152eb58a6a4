"""Until when a certificate is valid, and reminders to renew it. OpenSSL reads all else of certificates."""

import logging
import re
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

_LOG = logging.getLogger("backwire.tls")

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17
_DAY = timedelta(days=1)
_MOST_NOTICE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid."""

    begin: datetime
    end: datetime

    @classmethod
    def of(cls, pem: bytes) -> Self | None:
        """Returns that of the first certificate, which is the server's own; None for what cannot be read."""
        found = _BLOCK.search(pem)
        try:
            der = ssl.PEM_cert_to_DER_cert(found[0].decode()) if found else b""
            return cls(*_validity(der))
        except (ValueError, IndexError):
            return None

    @property
    def notice(self) -> timedelta:
        """How long before its end it should have been renewed: those that are short-lived are renewed late."""
        return min(_MOST_NOTICE, (self.end - self.begin) / 10)


class Reminder:
    """Logs that a certificate has expired or will soon: when it is taken up, and then once a day at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._validity: Validity | None = None
        self._next = datetime.max.replace(tzinfo=UTC)

    def take(self, pem: bytes, now: datetime) -> None:
        """Begins with another certificate, of which it warns at once if need be."""
        with self._lock:
            self._validity = Validity.of(pem)
            self._next = datetime.min.replace(tzinfo=UTC)
        self.look(now)

    def look(self, now: datetime) -> None:
        """Warns of the certificate if it is time to. Cheap enough for each connection."""
        with self._lock:
            validity = self._validity
            if validity is None or now < max(self._next, validity.end - validity.notice):
                return
            self._next = now + _DAY
        end = validity.end.strftime("%Y-%m-%d %H:%M:%SZ")
        if now >= validity.end:
            _LOG.warning("%s expired on %s: clients refuse it; renew it", self._path, end)
        else:
            _LOG.warning("%s expires on %s: clients will refuse it then; renew it", self._path, end)


def _validity(der: bytes) -> tuple[datetime, datetime]:
    """Returns the two times of a certificate in DER, by RFC 5280, 4.1; raises ValueError or IndexError for others."""
    _, certificate, _ = _element(der)
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)
    skipped = 3 if tag == _VERSION else 2  # serial number, signature algorithm and issuer, less the first unless it was
    for _ in range(skipped):
        _, _, rest = _element(rest)
    tag, times, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("a certificate has its validity here")
    kind, begin, rest = _element(times)
    other, end, _ = _element(rest)
    return _time(kind, begin), _time(other, end)


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Returns the tag and the content of the first element, and what comes after it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    if len(der) < start + length:
        raise ValueError("an element is cut off")
    return der[0], der[start : start + length], der[start + length :]


def _time(kind: int, text: bytes) -> datetime:
    """Returns a UTCTime, whose years are from 1950 to 2049, or a GeneralizedTime."""
    told = text.decode("ascii")
    if kind == _UTC_TIME:
        told = ("20" if told < "50" else "19") + told
    return datetime.strptime(told, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
