"""How many sessions there may be."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from backwire_server.sessions.caller import tenant_of
from backwire_server.sessions.errors import TooManySessions
from backwire_server.sessions.limits import Limits, LimitsOf


class Places:
    """The places for sessions: those of all, and of each tenant. May be used by several threads at once."""

    def __init__(self, limits: Limits, limits_of: LimitsOf, mutex: threading.Lock) -> None:
        """`mutex` is held when what it is given is looked at."""
        self._limits = limits
        self._limits_of = limits_of
        self._mutex = mutex
        self._building: Counter[str] = Counter()

    @contextmanager
    def one(self, tenant: str, sessions: Collection[str]) -> Iterator[None]:
        """Keeps a place for a session that is made in the block, beside those of these ids; raises TooManySessions."""
        most = self._limits_of(tenant).tenant_max_sessions
        with self._mutex:
            if len(sessions) + self._building.total() >= self._limits.max_sessions:
                raise TooManySessions(
                    f"the server keeps {self._limits.max_sessions:,} sessions, which is its limit; delete sessions "
                    "that are not needed, or raise --max-sessions",
                    quota="max_sessions",
                )
            if most is not None and _count(tenant, sessions) + self._building[tenant] >= most:
                raise TooManySessions(
                    f"tenant {tenant!r} has {most:,} sessions, which is its limit; delete sessions that are not needed",
                    quota="tenant_max_sessions",
                )
            self._building[tenant] += 1
        try:
            yield
        finally:
            with self._mutex:
                self._building[tenant] -= 1


def _count(tenant: str, sessions: Collection[str]) -> int:
    return sum(tenant_of(each) == tenant for each in sessions)
