"""Tells who calls by the token that comes with the call, and follows the tokens file as it changes."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from backwire_server.access.files import Stamp, stamp, warn_if_exposed
from backwire_server.access.tokens import Tokens, read_tokens
from backwire_server.sessions.caller import Caller
from backwire_server.sessions.errors import Unauthenticated
from backwire_server.sessions.limits import UNLIMITED, TenantLimits

_LOG = logging.getLogger("backwire.tokens")
_BEARER = re.compile(r"bearer +(\S+) *", re.ASCII | re.IGNORECASE)
_LOOK_SECONDS = 1.0  # between looks at the file

Metadata = Iterable[tuple[str, str | bytes]]


class Keyring:
    """The tokens of a file.

    The file is looked at when a token is, at most once a second. When it has become wrong, or is gone, the tokens stay
    as they were and an error is logged. Safe to use from several threads.
    """

    def __init__(
        self,
        path: Path,
        defaults: TenantLimits = UNLIMITED,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the file; raises ConfigError for one that is wrong, and OSError for one that cannot be read.

        `defaults` is what tenants are held to as far as the file says nothing else.
        """
        self._path = path
        self._defaults = defaults
        self._monotonic = monotonic
        self._now = now
        self._looking = threading.Lock()
        self._looked = monotonic()
        self._stamp = stamp([path])  # before it is read: what changes meanwhile is noticed later
        self._tokens = self._read()

    @property
    def crowded(self) -> bool:
        """Whether there are several tenants."""
        return len(self._tokens.tenants) > 1

    def limits_of(self, tenant: str) -> TenantLimits:
        """Returns what a tenant is held to."""
        return self._limits.get(tenant, self._defaults)

    def identify(self, metadata: Metadata) -> Caller:
        """Returns whose token the metadata of a call have; raises Unauthenticated for none, and for one not good."""
        token = _token(metadata)
        self._follow()
        entry = self._tokens.find(token)
        if entry is None:
            raise Unauthenticated("the token is unknown; check that it is whole, or ask the server's operator for one")
        if entry.expires is not None and entry.expires <= self._now():
            raise Unauthenticated(
                f"the token expired at {entry.expires.isoformat()}; ask the server's operator for another"
            )
        return entry.caller

    def _follow(self) -> None:
        """Reads the file again if it has changed, unless it was looked at lately or another thread does so."""
        moment = self._monotonic()
        if moment - self._looked < _LOOK_SECONDS or not self._looking.acquire(blocking=False):
            return
        try:
            self._looked = moment
            found = stamp([self._path])
            if found != self._stamp:
                self._replace(found)
        finally:
            self._looking.release()

    def _replace(self, found: Stamp) -> None:
        self._stamp = found
        try:
            self._tokens = self._read()
        except (OSError, ValueError) as error:
            _LOG.error("the tokens stay as they were, since the changed file cannot be used: %s", error)

    def _read(self) -> Tokens:
        tokens = read_tokens(self._path)
        self._limits = {name: replace(self._defaults, **own) for name, own in tokens.limits.items()}
        warn_if_exposed(self._path, _LOG)
        _LOG.info("%s has %d tokens", self._path, len(tokens))
        return tokens


def _token(metadata: Metadata) -> str:
    given = [value for key, value in metadata if key.lower() == "authorization"]
    if not given:
        raise Unauthenticated(
            "no token came with the call; send the metadata `authorization: Bearer TOKEN`, with the Python client by "
            "connect(target, token=TOKEN) or BACKWIRE_TOKEN"
        )
    text = given[0].decode("latin-1") if isinstance(given[0], bytes) else given[0]
    match = _BEARER.fullmatch(text)
    if len(given) > 1 or match is None:
        raise Unauthenticated("the authorization is not a single `Bearer TOKEN`; send the token like that, once")
    return match[1]
