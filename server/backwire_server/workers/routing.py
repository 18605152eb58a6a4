"""Which worker a request is for, by the id of its session.

The id of a session that is not durable begins with the tag of the worker that keeps it, which is drawn anew for every
process. So no table of sessions is needed, and an id of a worker that ended is known for what it is. The id of a
durable session has a slot instead, which tells the number of the worker; see `sessions.info.Home`.
"""

import secrets

from backwire_server.sessions.info import Home

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
