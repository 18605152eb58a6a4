"""The sessions that a server knows."""

import threading
from collections import Counter
from collections.abc import Collection, Mapping

from backwire_server.sessions.caller import ANYONE, Caller, tenant_of
from backwire_server.sessions.session import Session


class Register:
    """Sessions by their ids, numbered in the order in which they were added. May be used by several threads at once.

    Attributes:
        mutex: What must be held while `ids` are looked at one by one.
    """

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self._sessions: dict[str, tuple[int, Session]] = {}
        self._added = 0

    def add(self, session: Session, *, instead: bool = False) -> Session:
        """Adds a session, unless there is one of its id and it is not to come `instead`; returns the one there is."""
        with self.mutex:
            if instead:
                self._sessions.pop(session.session_id, None)  # or the new one would come before others of lower numbers
            if session.session_id not in self._sessions:
                self._sessions[session.session_id] = self._added, session
                self._added += 1
            return self._sessions[session.session_id][1]

    def find(self, session_id: str) -> Session | None:
        """Returns the session of this id; None for none."""
        with self.mutex:
            found = self._sessions.get(session_id)
        return None if found is None else found[1]

    def forget(self, *session_ids: str) -> None:
        """Removes the sessions of these ids, as far as there are any."""
        with self.mutex:
            for session_id in session_ids:
                self._sessions.pop(session_id, None)

    def of(self, caller: Caller = ANYONE) -> list[Session]:
        """Returns the sessions that a caller may use, in their order."""
        return [session for _, session in self.after(-1, caller)]

    def after(self, number: int, caller: Caller) -> list[tuple[int, Session]]:
        """Returns the sessions that a caller may use whose numbers are above this one, with their numbers."""
        with self.mutex:
            return [
                (each, session)
                for session_id, (each, session) in self._sessions.items()
                if each > number and caller.owns(session_id)
            ]

    @property
    def ids(self) -> Collection[str]:
        """The ids of the sessions that there are at any time."""
        return self._sessions.keys()

    @property
    def census(self) -> tuple[int, int]:
        """How many sessions there are, and how many were ever added."""
        with self.mutex:
            return len(self._sessions), self._added

    @property
    def tenants(self) -> Mapping[str, int]:
        """How many sessions each tenant has."""
        with self.mutex:
            return Counter(map(tenant_of, self._sessions))
