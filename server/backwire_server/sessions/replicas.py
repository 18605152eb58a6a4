"""Which of several servers behind one address keeps a session, as its id tells."""

import re

from backwire_server.sessions.errors import SessionError, SessionNotFound, WrongReplica

_REPLICA = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", re.ASCII)
_RETRY_SECONDS = 0.25


def is_replica(name: str) -> bool:
    """Tells whether a replica may have this name: 1 to 24 of a-z, 0-9 and, within, `-`."""
    return _REPLICA.fullmatch(name) is not None


def replica_of(session_id: str) -> str:
    """Returns the replica that made a session: what its id has between `~` and the tenant, empty for none."""
    return session_id.partition(".")[0].partition("~")[2]


def tag_of(replica: str) -> str:
    """Returns what the ids of the sessions of a replica have before the tenant, empty for none."""
    return f"~{replica}" if replica else ""


def absent(session_id: str, replica: str, owner: str = "") -> SessionError:
    """Returns the error for a session that this replica does not have; an empty name is that of a server alone.

    It is WrongReplica where another replica made the session, which then has it; `owner` is its address if known.
    """
    shown, other = session_id[:96], replica_of(session_id)
    if replica and is_replica(other) and other != replica:
        return WrongReplica(
            f"session {shown!r} is kept by the replica {other!r}, and this is {replica!r}; call again, and send the "
            "metadata backwire-session-id, by which the load balancer finds it; one that was in memory alone has ended "
            "where that replica has",
            retry_after=_RETRY_SECONDS,
            owner=owner,
        )
    return SessionNotFound(
        f"there is no session {shown!r}: it never was, it was deleted, or it was not durable and the server "
        "restarted; create a new one",
        field="session_id",
    )
