"""The tokens file: who has a token, for which tenant, with which scope, and until when.

    [[token]]
    id = "0123456789abcdef"             the part of the token that is no secret
    name = "trainer-1"                  for logs
    tenant = "acme"
    scope = "write"                     or "read" or "admin"
    sha256 = "..."                      64 hex digits
    expires = 2027-01-01T00:00:00Z      may be missing

    [tenant.acme]
    max_sessions = 20                   what this tenant is held to: see TenantLimits; without the `tenant_` before it

A token is `bw_ID_SECRET`, with an id of 16 hex digits and a secret of 43 characters of base64url, which are 256 random
bits. The file has the SHA-256 of the whole token. Slow hashes such as bcrypt protect secrets that people choose, of
which there are few enough to try; 2**256 are too many to try however fast the hash is. Entries may share a name and a
tenant, so that a new token is good before the old one is taken away.

No error, no log and no `repr` has a token or a hash; that is why errors never quote a value.
"""

import hashlib
import hmac
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from backwire_server.config_values import ConfigError
from backwire_server.sessions.caller import Caller, Scope, is_tenant
from backwire_server.sessions.limits import TenantLimits

_TOKEN = re.compile(r"bw_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,47}", re.ASCII)  # too short for a token or a hash
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PRINTABLE_KEY = re.compile(r"[A-Za-z_-]{1,15}", re.ASCII)
_KEYS = ("id", "name", "tenant", "scope", "sha256", "expires")

_FORMS: Mapping[str, Callable[[str], object]] = {
    "id": _ID.fullmatch,
    "name": _NAME.fullmatch,
    "tenant": is_tenant,
    "scope": {scope.value for scope in Scope}.__contains__,
    "sha256": _SHA256.fullmatch,
}

_NOBODY = os.urandom(32)
"""What the hash of a token with an unknown id is compared with, so that the time of the refusal is the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token: whom it lets in, the SHA-256 that proves it, and until when it is good; None for always."""

    id: str
    caller: Caller
    digest: bytes = field(repr=False)
    expires: datetime | None = None


class Tokens:
    """The entries of a tokens file.

    Attributes:
        tenants: The tenants that have tokens, or limits.
        limits: What tenants are held to that have limits of their own, by name; what is missing there is not.
    """

    def __init__(self, entries: Mapping[str, Entry], limits: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self._entries = dict(entries)
        self.limits = dict(limits or {})
        self.tenants = {entry.caller.tenant for entry in self._entries.values()} | self.limits.keys()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, token: str) -> Entry | None:
        """Returns the entry of a token, expired or not; None for one that is in no entry.

        It takes the same time whether the id is unknown or the secret wrong.
        """
        match = _TOKEN.fullmatch(token)
        entry = self._entries.get(match[1]) if match else None
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        same = hmac.compare_digest(digest, _NOBODY if entry is None else entry.digest)
        return entry if same else None


def read_tokens(path: Path) -> Tokens:
    """Reads a tokens file; raises ConfigError for one that is wrong, and OSError for one that cannot be read."""
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not in UTF-8; write it as such") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(([^()]*)\)$", str(error))  # what comes before may quote the file
        raise ConfigError(f"{path} is no TOML{f' {place[1]}' if place else ''}; correct it there") from None
    found = document.pop("token", [])
    limits = _limits(path, document.pop("tenant", {}))
    if document or not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigError(
            f"{path} has something besides entries; begin each with [[token]], or [tenant.NAME] for limits, and leave "
            "out all else"
        )
    entries: dict[str, Entry] = {}
    for number, table in enumerate(found, 1):
        entry = _Reader(path, number, table).entry()
        if entry.id in entries:
            raise ConfigError(f"{path}: entry {number} has the id of another one; make another token, or remove one")
        entries[entry.id] = entry
    return Tokens(entries, limits)


def _limits(path: Path, tables: Any) -> dict[str, dict[str, int]]:
    """Returns the limits of tenants, by the names in TenantLimits; raises ConfigError."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{path}: tenant is no table of tables; write limits below [tenant.NAME]")
    known = {each.name.removeprefix("tenant_"): each.name for each in fields(TenantLimits)}
    found: dict[str, dict[str, int]] = {}
    for number, (tenant, table) in enumerate(tables.items(), 1):
        if not is_tenant(tenant):
            raise ConfigError(f"{path}: the name of tenant {number} is none; use 1 to 24 of a-z, 0-9 and, within, -")
        for key, value in table.items():
            if key not in known:
                raise ConfigError(f"{path}: a limit of tenant {tenant} is unknown; there are {', '.join(known)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{path}: {key} of tenant {tenant} is no whole number of at least 1; make it one")
        found[tenant] = {known[key]: value for key, value in table.items()}
    return found


class _Reader:
    """Reads one entry, and says where what is wrong is."""

    def __init__(self, path: Path, number: int, table: dict[str, Any]) -> None:
        self._table = table
        name = table.get("name")
        known = f" ({name})" if isinstance(name, str) and _NAME.fullmatch(name) else ""
        self._where = f"{path}: entry {number}{known}"

    def entry(self) -> Entry:
        """Returns the entry; raises ConfigError that names the file, the entry and the key."""
        for key in self._table.keys() - set(_KEYS):
            shown = key if _PRINTABLE_KEY.fullmatch(key) else "a key"
            raise ConfigError(f"{self._where}: {shown} is unknown; an entry has {', '.join(_KEYS)}")
        public = self._text("id", "16 hex digits in lower case")
        name = self._text("name", "1 to 48 letters, digits and ._@- that begin with a letter or a digit")
        tenant = self._text("tenant", "1 to 24 of a-z, 0-9 and, within, -")
        scope = self._text("scope", "one of " + ", ".join(scope.value for scope in Scope))
        digest = self._text("sha256", "the 64 hex digits, in lower case, of the token's SHA-256")
        return Entry(public, Caller(name, tenant, Scope(scope)), bytes.fromhex(digest), self._expires())

    def _text(self, key: str, form: str) -> str:
        if key not in self._table:
            raise ConfigError(f"{self._where}: {key} is missing; add it: {form}")
        value = self._table[key]
        if not isinstance(value, str) or not _FORMS[key](value):
            raise ConfigError(f"{self._where}: {key} is wrong; it must be {form}, in quotes")
        return value

    def _expires(self) -> datetime | None:
        moment = self._table.get("expires")
        if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
            raise ConfigError(f"{self._where}: expires is no moment; write it like 2027-01-01T00:00:00Z, unquoted")
        return moment
