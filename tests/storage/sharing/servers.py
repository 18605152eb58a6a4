"""Servers over one directory, as tests have them, and what they do to its sessions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.storage.toy import mutation, spec

from backwire_server.sessions.info import Home
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage.sharing.shared_vault import SharedVault

Start = Callable[[str], "Server"]


class Server:
    """A store of a replica, and its vault."""

    def __init__(self, directory: Path, replica: str) -> None:
        self.directory = directory
        self.vault = SharedVault(directory, replica=replica, lease=3_600.0, default=Durability.JOURNAL, limits=Limits())
        self.store = SessionStore(Limits(), Home(replica=replica), self.vault)

    def create(self, key: RequestKey | None = None) -> str:
        return self.store.create(UNBOUNDED, spec(), key).session_id

    def listed(self) -> list[str]:
        return [each.session_id for each in self.store.list().sessions]


def put(session: Session, value: int) -> None:
    session.set_parameters(UNBOUNDED, mutation(value).call.values)


def value(session: Session) -> Any:
    with session.parameters(UNBOUNDED) as snapshot:
        ((_, array),) = snapshot
        return array.item()


def gone(directory: Path, replica: str) -> None:
    """Makes those who join from now on believe that a server is dead, which knows nothing of that."""
    (directory / "replicas" / replica).unlink()
