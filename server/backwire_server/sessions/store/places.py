"""How many sessions there may be."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from backwire_server.sessions.caller import tenant_of
from backwire_server.sessions.errors import TooManySessions
from backwire_server.sessions.limits import Limits, LimitsOf


class Place:
    """The place of a session that is being made.

    Attributes:
        session_id: Its id, once that is known; it does not count twice then, here and among those that there are.
    """

    __slots__ = ("session_id", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.session_id = ""


class Places:
    """The places for sessions: those of all, and of each tenant. May be used by several threads at once."""

    def __init__(self, limits: Limits, limits_of: LimitsOf, mutex: threading.Lock) -> None:
        """`mutex` is held when what it is given is looked at."""
        self._limits = limits
        self._limits_of = limits_of
        self._mutex = mutex
        self._building: set[Place] = set()

    @contextmanager
    def one(self, tenant: str, sessions: Collection[str]) -> Iterator[Place]:
        """Keeps a place for a session that is made in the block, beside those of these ids; raises TooManySessions.

        The block tells the place the id of the session before that is one of these.
        """
        most, place = self._limits_of(tenant).tenant_max_sessions, Place(tenant)
        with self._mutex:
            building = [each.tenant for each in self._building if each.session_id not in sessions]
            if len(sessions) + len(building) >= self._limits.max_sessions:
                raise TooManySessions(
                    f"the server keeps {self._limits.max_sessions:,} sessions, which is its limit; delete sessions "
                    "that are not needed, or raise --max-sessions",
                    quota="max_sessions",
                )
            if most is not None and _count(tenant, sessions) + building.count(tenant) >= most:
                raise TooManySessions(
                    f"tenant {tenant!r} has {most:,} sessions, which is its limit; delete sessions that are not needed",
                    quota="tenant_max_sessions",
                )
            self._building.add(place)
        try:
            yield place
        finally:
            with self._mutex:
                self._building.remove(place)


def _count(tenant: str, sessions: Collection[str]) -> int:
    return sum(tenant_of(each) == tenant for each in sessions)
