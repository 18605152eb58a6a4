"""Who calls, and which sessions are theirs."""

import re
from dataclasses import dataclass
from enum import Enum

DEFAULT_TENANT = "default"

_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", re.ASCII)


class Scope(Enum):
    """What a caller may do: each may do what those before it may."""

    READ = "read"
    """Look at the sessions of its tenant, and evaluate them."""

    WRITE = "write"
    """Create, train and delete them."""

    ADMIN = "admin"
    """Do that with the sessions of all tenants."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a call: a name for logs, the tenant whose sessions it may use, and what it may do with them."""

    name: str = ""
    tenant: str = DEFAULT_TENANT
    scope: Scope = Scope.ADMIN

    def owns(self, session_id: str) -> bool:
        """Tells whether a session of this id is the caller's to use, if there is one."""
        return self.scope is Scope.ADMIN or tenant_of(session_id) == self.tenant


ANYONE = Caller()
"""The caller of a server that lets everybody in."""


def is_tenant(name: str) -> bool:
    """Tells whether a tenant may have this name: 1 to 24 of a-z, 0-9 and, within, `-`."""
    return _TENANT.fullmatch(name) is not None


def tenant_of(session_id: str) -> str:
    """Returns the tenant that a session belongs to: what its id ends with after a dot, or the default one."""
    return session_id.partition(".")[2] or DEFAULT_TENANT


def suffix_of(tenant: str) -> str:
    """Returns what the ids of the sessions of a tenant end with, empty for the default one."""
    return "" if tenant == DEFAULT_TENANT else f".{tenant}"
