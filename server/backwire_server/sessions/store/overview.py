"""Some sessions at one glance, for those who look on."""

import heapq
from collections.abc import Collection

from backwire_server.sessions.session import Session
from backwire_server.sessions.status import Overview


def overview_of(sessions: Collection[Session], most: int) -> Overview:
    """Returns how many sessions there are, and how those are doing that were used last; waits for no call."""
    latest = heapq.nlargest(most, sessions, key=lambda session: session.idle_since)
    return Overview(
        count=len(sessions),
        awake=sum(session.awake for session in sessions),
        nbytes=sum(session.nbytes for session in sessions),
        sessions=[session.status() for session in latest],
    )
