"""Sessions that may leave the memory."""

from tests.storage.durable import TOUR, Disk, create, do

from backwire_server.sessions.session import Session


def trained(disk: Disk) -> Session:
    """A session in the store, with passes, contributions and a lease."""
    session = create(disk.store)
    do(session, *TOUR)
    return session


def awake(*sessions: Session) -> list[bool]:
    return [session.awake for session in sessions]
