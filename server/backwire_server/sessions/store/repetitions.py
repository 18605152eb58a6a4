"""Requests that make and delete sessions: what a repetition is answered."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backwire_server.sessions.requests import Answer, RequestKey, RequestLog, of_tenant
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.turns.locks import KeyedLocks


class Repetitions:
    """The answers to the last requests that had an id, which each tenant draws by itself.

    May be used by several threads at once.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._log = RequestLog()
        self._turns = KeyedLocks()

    @contextmanager
    def answered(self, key: RequestKey | None, scope: CallScope) -> Iterator[object]:
        """Keeps requests of the caller of the same id apart; gives the answer to the first, or None for none so far.

        Raises what `RequestLog.find` raises, and what `scope.check` raises when the call ends while it waits.
        """
        if key is None:
            yield None
            return
        with self._turns.hold(of_tenant(key, scope.caller.tenant).request_id, scope):
            yield self.find(key, scope.caller.tenant)

    def find(self, key: RequestKey, tenant: str) -> object:
        """Returns the answer to a tenant's request, None for none so far; raises what `RequestLog.find` raises."""
        with self._mutex:
            return self._log.find(of_tenant(key, tenant))

    def record(self, key: RequestKey | None, tenant: str, answer: Answer) -> None:
        """Remembers the answer to a tenant's request, if it has an id."""
        with self._mutex:
            self._log.record(of_tenant(key, tenant), answer)
