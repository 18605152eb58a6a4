"""Stores over one directory: each serves what the others made, and knows when they deleted it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.storage.toy import KEY, mutation, spec

from backwire_server.sessions import models
from backwire_server.sessions.caller import ANYONE
from backwire_server.sessions.durable import Durability
from backwire_server.sessions.errors import (
    DeadlineExceeded,
    ExecutorUnavailable,
    InvalidRequest,
    Recovering,
    RequestIdReused,
    SessionNotFound,
    WrongReplica,
)
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED, Unbounded, unchecked
from backwire_server.sessions.session import Session
from backwire_server.sessions.store import SessionStore
from backwire_server.storage import membership, pacing, shared_vault
from backwire_server.storage.shared_vault import SharedVault

Start = Callable[[str], "Server"]


class Server:
    """A store of a replica, and its vault."""

    def __init__(self, directory: Path, replica: str) -> None:
        self.vault = SharedVault(directory, replica=replica, lease=3_600.0, default=Durability.JOURNAL, limits=Limits())
        self.store = SessionStore(Limits(), Home(replica=replica), self.vault)

    def create(self, key: RequestKey | None = None) -> str:
        return self.store.create(UNBOUNDED, spec(), key).session_id

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


def test_what_would_take_long_to_do_again_is_in_a_passing_checkpoint(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_vault, "REPLAY_SECONDS", 0.0)
    monkeypatch.setattr(pacing, "WORTH", (0, 0))
    one = start("one")
    session_id = one.create()
    for number in (1, 2, 3):
        put(one.store.get(session_id), number)
    one.store.get(session_id)._keeper.files._checkpointing.drain()  # type: ignore[attr-defined]
    (tmp_path / "replicas" / "one").unlink()
    other = start("other")
    (kept,) = other.vault.look(session_id)._checkpoints.manifest.automatic
    assert kept.passing
    assert kept.record > 0
    assert value(other.store.get(session_id)) == 3


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


def test_a_list_reads_one_of_many_sessions_that_were_made_from_the_same_and_misses_none(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = start("one"), start("other")
    ids = [one.create() for _ in range(4)]
    looked, seen = Mock(wraps=other.vault.look), Mock(wraps=other.vault.names)
    monkeypatch.setattr(other.vault, "look", looked)
    monkeypatch.setattr(other.vault, "names", seen)
    first = other.store.list(2)
    assert looked.call_count == 4 + 1, "what each is, when it is found, and what it was made from"
    one.store.delete(UNBOUNDED, first.sessions[0].session_id)
    ids.append(one.create())
    second = other.store.list(2, first.next_token)
    third = other.store.list(2, second.next_token)
    assert {each.session_id for page in (first, second, third) for each in page.sessions} == set(ids)
    assert (third.next_token, looked.call_count, seen.call_count) == ("", 6, 3)
    assert first.sessions[0].session_id not in other.listed()
    other.store.list(1, other.store.list(1).next_token)
    assert seen.call_count == 5, "not for a page in the middle"
    assert looked.call_count == 6


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


def test_a_creation_that_is_repeated_to_another_makes_no_second_session(start: Start) -> None:
    one, other = start("a"), start("b")
    session_id = one.create(KEY)
    assert other.create(KEY) == session_id
    assert one.listed() == other.listed() == [session_id]
    assert other.create(RequestKey("another", KEY.fingerprint)) != session_id
    with pytest.raises(WrongReplica):
        put(other.store.get(session_id), 1)


def test_a_branch_that_is_repeated_to_another_makes_no_second_session(start: Start) -> None:
    one, other = start("a"), start("b")
    parent = one.create()
    branch = one.store.fork(UNBOUNDED, parent, KEY).session_id
    assert other.store.fork(UNBOUNDED, parent, KEY).session_id == branch


def test_a_request_with_the_id_of_a_creation_and_another_content_is_refused_by_all(start: Start) -> None:
    one, other = start("a"), start("b")
    one.create(KEY)
    for server in (one, other):
        with pytest.raises(RequestIdReused):
            server.create(RequestKey(KEY.request_id, b"another"))


def test_the_ids_of_one_directory_cannot_be_told_from_those_of_another(tmp_path: Path) -> None:
    found = []
    for name in "ab":
        (tmp_path / name).mkdir()
        server = Server(tmp_path / name, "a")
        found.append(server.create(KEY))
        server.store.close()
    assert len(set(found)) == 2


def test_a_session_that_was_deleted_is_not_made_again_by_its_own_request(start: Start) -> None:
    one, other = start("a"), start("b")
    session_id = one.create(KEY)
    one.store.delete(UNBOUNDED, session_id, RequestKey("deletion", b""))
    with pytest.raises(SessionNotFound, match="new request_id"):
        other.create(KEY)
    assert other.listed() == []


def test_while_one_makes_a_session_another_has_the_request_repeated(start: Start) -> None:
    one, other = start("a"), start("b")
    session_id = session_of(one)
    one.vault._born(session_id, unchecked)
    with pytest.raises(Recovering):
        other.create(KEY)
    one.vault._unborn(session_id)
    assert other.create(KEY) == session_id


def test_who_repeats_a_request_that_a_silent_server_began_to_serve_looks_at_the_deadline(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = start("a"), start("b")
    one.vault._born(session_of(one), unchecked)
    looks: list[int] = []

    class Passing(Unbounded):
        def check(self) -> None:
            if looks:
                raise DeadlineExceeded("it passed")

    def is_late(*_: object) -> bool:
        looks.append(1)
        return len(looks) < 100

    monkeypatch.setattr(membership.Membership, "_is_late", is_late)
    monkeypatch.setattr(membership, "CHECK_SECONDS", 0.001)
    with pytest.raises(DeadlineExceeded):
        other.store.create(Passing(), spec(), KEY)


def test_a_session_over_which_its_server_died_is_made_by_another(start: Start, tmp_path: Path) -> None:
    one = start("a")
    session_id = session_of(one)
    own = one.vault._born(session_id, unchecked)
    (own / f".new-{session_id}").mkdir()
    gone(tmp_path, "a")
    other = start("b")
    assert other.create(KEY) == session_id
    assert os.listdir(tmp_path / "shared" / session_id / os.listdir(tmp_path / "shared" / session_id)[0]) == [
        session_id
    ]
    one.vault._unborn(session_id)  # it had only stalled, and what it does is of no effect
    put(other.store.get(session_id), 7)
    assert value(other.store.get(session_id)) == 7


def test_a_session_that_moves_is_the_others_at_once_and_nobody_elses(start: Start) -> None:
    one, other, third = start("a"), start("b"), start("c")
    session_id = one.create()
    put(one.store.get(session_id), 5)
    one.store.get(session_id).move(UNBOUNDED, "b")
    for server in (one, third):
        with pytest.raises(WrongReplica, match="'b'"):
            put(server.store.get(session_id), 6)
    assert value(other.store.get(session_id)) == 5
    other.store.get(session_id).move(UNBOUNDED, "b")
    put(other.store.get(session_id), 7)
    assert value(other.store.get(session_id)) == 7


def test_a_session_does_not_move_to_a_server_that_is_not_there_and_goes_on(start: Start) -> None:
    one, _ = start("a"), start("b")
    session_id = one.create()
    with pytest.raises(InvalidRequest, match="name one of: a, b"):
        one.store.get(session_id).move(UNBOUNDED, "c")
    put(one.store.get(session_id), 5)


def test_a_server_that_cannot_compute_a_session_lets_go_of_it_and_gives_it_away(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, third = start("a"), start("b"), start("c")
    session_id = one.create()
    put(one.store.get(session_id), 5)

    def refuse(*_: object) -> None:
        raise ExecutorUnavailable("b has no JAX")

    for away in (False, True):
        one.store.get(session_id).move(UNBOUNDED, "b")
        with monkeypatch.context() as changed:
            changed.setattr(models, "model_on", refuse)
            if away:
                other.store.get(session_id).move(UNBOUNDED, "c")
            else:
                with pytest.raises(ExecutorUnavailable):
                    value(other.store.get(session_id))
        assert value((third if away else one).store.get(session_id)) == 5


def test_a_session_that_is_not_in_memory_and_does_not_move_is_anybodys(start: Start) -> None:
    one, other = start("a"), start("b")
    session_id = one.create()
    assert one.store.get(session_id).hibernate()
    with pytest.raises(InvalidRequest, match="name one of: a, b"):
        one.store.get(session_id).move(UNBOUNDED, "c")
    put(other.store.get(session_id), 5)


def test_a_session_that_moved_to_a_server_that_died_is_taken_over(start: Start, tmp_path: Path) -> None:
    one, _ = start("a"), start("b")
    session_id = one.create()
    put(one.store.get(session_id), 5)
    one.store.get(session_id).move(UNBOUNDED, "b")
    gone(tmp_path, "b")
    assert value(start("c").store.get(session_id)) == 5


def session_of(server: Server) -> str:
    """The id of the session that the request of KEY makes."""
    return server.store._maker.id_of_request(KEY.request_id, ANYONE.tenant)


def gone(directory: Path, replica: str) -> None:
    """Makes those who join from now on believe that a server is dead, which knows nothing of that."""
    (directory / "replicas" / replica).unlink()
