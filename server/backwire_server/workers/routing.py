"""Which worker a request is for, by the id of its session.

The id of a session that is not durable begins with the tag of the worker that keeps it, which is drawn anew for every
process. So no table of sessions is needed, and an id of a worker that ended is known for what it is. The id of a
durable session has a slot instead, which tells the number of the worker; see `sessions.info.Home`.
"""

import secrets

from backwire_server.sessions.errors import NoWorker, SessionError, SessionLost
from backwire_server.sessions.info import Home, slot_of

TAG_LENGTH = 8

_PREFIX = Home().id_prefix


def new_tag() -> str:
    """Returns a tag that no other process has."""
    return secrets.token_urlsafe(TAG_LENGTH * 3 // 4)


def home(tag: str, address: str, index: int = 0, count: int = 1, replica: str = "") -> Home:
    """Returns what the sessions of a worker tell of where they are; it is number `index` of `count` of a replica."""
    return Home(_PREFIX + tag, address, index, count, replica)


def tag_of(session_id: str) -> str:
    """Returns the tag in a session's id; a text that no worker has for what is no session's id."""
    return session_id[len(_PREFIX) : len(_PREFIX) + TAG_LENGTH] if session_id.startswith(_PREFIX) else ""


def no_worker() -> NoWorker:
    """Returns the error for a call that no worker can take just now."""
    return NoWorker("no worker process is ready; call again", retry_after=1.0)


def lost(session_id: str) -> SessionError:
    """Returns the error for a call on a session whose worker ended.

    It is NoWorker when the call was on no session, or on one that is durable, which comes back with the next worker.
    """
    if not session_id:
        return NoWorker("the worker process ended before it answered; call again", retry_after=1.0)
    if slot_of(session_id) is not None:
        return NoWorker(
            f"the process that keeps session {session_id[:64]!r} ended, and another takes its place; call again: the "
            "session will be as it was",
            retry_after=0.3,
        )
    return SessionLost(
        f"session {session_id[:64]!r} is lost: the process that kept it ended unexpectedly; create it again",
        field="session_id",
    )
