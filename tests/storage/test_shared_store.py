"""Stores over one directory: each serves what the others made, and knows when they deleted it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.storage.toy import mutation, spec

from backwire_server.sessions.durable import Durability
from backwire_server.sessions.errors import SessionNotFound, WrongReplica
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store import SessionStore
from backwire_server.storage.shared_vault import SharedVault

Start = Callable[[str], "Server"]


class Server:
    """A store of a replica, and its vault."""

    def __init__(self, directory: Path, replica: str) -> None:
        self.vault = SharedVault(directory, replica=replica, lease=3_600.0, default=Durability.JOURNAL, limits=Limits())
        self.store = SessionStore(Limits(), Home(replica=replica), self.vault)

    def create(self) -> str:
        return self.store.create(UNBOUNDED, spec()).session_id

    def listed(self) -> list[str]:
        return [each.session_id for each in self.store.list().sessions]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts another server on the directory."""
    started: list[Server] = []

    def start(replica: str) -> Server:
        started.append(Server(tmp_path, replica))
        return started[-1]

    yield start
    for each in started:
        each.store.close()


def put(session: Session, value: int) -> None:
    session.set_parameters(UNBOUNDED, mutation(value).call.values)


def value(session: Session) -> Any:
    with session.parameters(UNBOUNDED) as snapshot:
        ((_, array),) = snapshot
        return array.item()


def test_a_session_that_another_made_is_found_and_refused_until_that_lets_go(start: Start) -> None:
    one, other = start("one"), start("other")
    session_id = one.create()
    put(one.store.get(session_id), 5)
    assert other.listed() == [session_id]
    with pytest.raises(WrongReplica):
        put(other.store.get(session_id), 6)
    assert one.store.get(session_id).hibernate()
    assert value(other.store.get(session_id)) == 5
    with pytest.raises(WrongReplica):
        one.store.get(session_id).standing(UNBOUNDED)


def test_what_a_session_tells_of_itself_is_what_its_owner_knows(start: Start, tmp_path: Path) -> None:
    one = start("one")
    session_id = one.create()
    (tmp_path / "replicas" / "one").unlink()
    other = start("other")
    put(other.store.get(session_id), 7)
    for tell in (lambda each: each.standing(UNBOUNDED), value, lambda each: put(each, 8)):
        with pytest.raises(WrongReplica, match="the replica 'other'"):
            tell(one.store.get(session_id))
    assert not one.store.get(session_id).awake
    assert value(other.store.get(session_id)) == 7


def test_a_session_that_another_deleted_is_gone(start: Start) -> None:
    one, other = start("one"), start("other")
    session_id = one.create()
    assert other.listed() == [session_id]
    one.store.delete(UNBOUNDED, session_id)
    with pytest.raises(SessionNotFound):
        value(other.store.get(session_id))
    assert other.listed() == one.listed() == []
    assert other.store.census[0] == 0
    with pytest.raises(SessionNotFound):
        other.store.get(session_id)


def test_a_session_that_is_listed_while_it_is_made_is_the_one_that_is_made(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start("one")
    create = one.vault.create

    def listed_meanwhile(*arguments: Any, **options: Any) -> Any:
        files = create(*arguments, **options)
        one.listed()
        return files

    monkeypatch.setattr(one.vault, "create", listed_meanwhile)
    session_id = one.create()
    put(one.store.get(session_id), 9)
    assert value(one.store.get(session_id)) == 9
    assert one.listed() == [session_id]
