"""Calls that ask for a processor, and a time that passes when it is told to."""

from backwire_server.sessions.caller import Caller
from backwire_server.sessions.errors import Cancelled
from backwire_server.sessions.scope import CallStop, Unbounded

SECONDS = 20.0


class Asking(Unbounded):
    """A call of a tenant, which can be cancelled."""

    def __init__(self, tenant: str = "a") -> None:
        super().__init__(Caller(tenant=tenant))
        self.gone = False
        self._stop = CallStop()

    @property
    def stop(self) -> CallStop:
        return self._stop

    def check(self) -> None:
        if self.gone:
            raise Cancelled("gone")


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
