"""Which durable sessions are in memory, and which of them go when it gets tight."""

import threading
import time
from collections import OrderedDict
from itertools import islice

from backwire_server.sessions.session import Session

CANDIDATES = 16
"""How many of the longest unused sessions are looked at for one that is idle."""


class AwakeSessions:
    """The durable sessions in memory, the longest unused first. May be used by several threads at once."""

    def __init__(self, most: int) -> None:
        """Lets at most so many stay, as far as they are idle."""
        self._most = most
        self._mutex = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def used(self, session: Session) -> None:
        """Notes that a session is in use, or about to be; others hibernate if there are too many."""
        with self._mutex:
            self._sessions[session.session_id] = session
            self._sessions.move_to_end(session.session_id)
        while len(self._sessions) > self._most and self.put_away(sparing=session):
            pass

    def remove(self, session_id: str) -> None:
        """Forgets a session, if it is known."""
        with self._mutex:
            self._sessions.pop(session_id, None)

    def prune(self) -> None:
        """Forgets the sessions that are in memory no more."""
        with self._mutex:
            for session_id in [name for name, session in self._sessions.items() if not session.awake]:
                del self._sessions[session_id]

    def put_away(self, sparing: Session | None = None) -> bool:
        """Has the longest unused session hibernate that is idle, but for one; tells whether there was one."""
        with self._mutex:
            candidates = [each for each in islice(self._sessions.values(), CANDIDATES) if each is not sparing]
        for session in candidates:
            if not session.awake or session.hibernate():
                self.remove(session.session_id)
                return True
        return False

    def shut(self, seconds: float) -> None:
        """Has all let go of their files, before the process ends; those hibernate for which so much time suffices."""
        deadline = time.monotonic() + seconds
        for session in list(self._sessions.values()):
            if time.monotonic() >= deadline or not session.hibernate():
                session.shut()
