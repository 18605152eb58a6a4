"""Sessions in pages, as clients list them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backwire_server.sessions.errors import Recovering, SessionNotFound, SessionQuarantined, StorageFailed
from backwire_server.sessions.info import SessionInfo
from backwire_server.sessions.session import Session


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions, oldest first, and the token of the next page, empty after the last."""

    sessions: list[SessionInfo]
    next_token: str


def infos_of(
    sessions: Sequence[tuple[int, Session]], room: int, gone: Callable[[str], None], *, recovering: bool
) -> tuple[list[SessionInfo], int | None]:
    """Returns what there is to tell of sessions, given with their numbers, and the number of the last one told of.

    Ends before the first that does not fit into `room` bytes with the others; None for no number where there are no
    sessions. Those that cannot be made from their files are left out, and so are those that another server deleted, of
    whose ids `gone` is told. Raises Recovering for one that is being made while the server is `recovering`.
    """
    found: list[SessionInfo] = []
    last: int | None = None
    for number, session in sessions:
        before, last = last, number
        try:
            info = session.info()
        except (SessionQuarantined, StorageFailed):
            continue
        except SessionNotFound:
            gone(session.session_id)
            continue
        except Recovering:
            if recovering:
                raise
            continue
        room -= info.nbytes
        if found and room < 0:
            return found, before
        found.append(info)
    return found, last
