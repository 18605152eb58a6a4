"""Races of a server that does something with a session which was taken from it, and the one that has it then."""

from collections.abc import Callable, Sequence

from tests.storage.interleaving import Actor
from tests.storage.race_site import Check, Race, Site, Works
from tests.storage.sharing.servers import Server, gone, put, value

from backwire_server.sessions.errors import SessionNotFound, WrongReplica
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.storage.verification import verify_session


def _of_stores(act: Callable[[Server, Session], object]) -> Race:
    """A server that was taken for dead does something, while another has the session and goes on."""

    def race(site: Site) -> tuple[Works, Check]:
        one = site.start("one")
        session = one.store.get(one.create())
        put(session, 1)
        session.save_checkpoint(UNBOUNDED, "kept")
        put(session, 2)
        gone(site.directory, "one")
        other = site.start("other")
        done: list[int] = []

        def take() -> None:
            taken = other.store.get(session.session_id)
            put(taken, 7)
            done.append(7)

        def check(actors: Sequence[Actor]) -> None:
            assert actors[0].error is None or isinstance(actors[0].error, WrongReplica | SessionNotFound)
            assert not session.quarantined
            assert not other.store.get(session.session_id).quarantined
            if actors[1].ended and done:
                assert value(other.store.get(session.session_id)) == 7

        return [lambda: act(one, session), take], check

    return race


ACTS: dict[str, Callable[[Server, Session], object]] = {
    "restore": lambda _, session: session.restore_checkpoint(UNBOUNDED, "kept", None),
    "rewind": lambda _, session: session.restore_checkpoint(UNBOUNDED, "", 0),
    "delete checkpoint": lambda _, session: session.delete_checkpoint(UNBOUNDED, "kept"),
    "fork": lambda server, session: server.store.fork(UNBOUNDED, session.session_id),
    "verify": lambda server, session: verify_session(server.directory, session.session_id, Limits()),
    "sleep": lambda _, session: (session.hibernate(), value(session)),
}

STORE_RACES = {name: _of_stores(act) for name, act in ACTS.items()}
