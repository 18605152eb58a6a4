"""A request that makes a session makes one, whichever of the servers over a directory it is repeated to."""

import os
from pathlib import Path

import pytest
from tests.storage.sharing.servers import Server, Start, gone, put, value
from tests.storage.toy import KEY, spec

from backwire_server.sessions.caller import ANYONE
from backwire_server.sessions.errors import (
    DeadlineExceeded,
    Recovering,
    RequestIdReused,
    SessionNotFound,
    WrongReplica,
)
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED, Unbounded, unchecked
from backwire_server.storage.sharing import membership


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
    one.vault._claims.begin(session_id, unchecked)
    with pytest.raises(Recovering):
        other.create(KEY)
    one.vault._claims.abandon(session_id)
    assert other.create(KEY) == session_id


def test_who_repeats_a_request_that_a_silent_server_began_to_serve_looks_at_the_deadline(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = start("a"), start("b")
    one.vault._claims.begin(session_of(one), unchecked)
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
    own = one.vault._claims.begin(session_id, unchecked)
    (own / f".new-{session_id}").mkdir()
    gone(tmp_path, "a")
    other = start("b")
    assert other.create(KEY) == session_id
    assert os.listdir(tmp_path / "shared" / session_id / os.listdir(tmp_path / "shared" / session_id)[0]) == [
        session_id
    ]
    one.vault._claims.abandon(session_id)  # it had only stalled, and what it does is of no effect
    put(other.store.get(session_id), 7)
    assert value(other.store.get(session_id)) == 7


def session_of(server: Server) -> str:
    """The id of the session that the request of KEY makes."""
    return server.store._maker.id_of_request(KEY.request_id, ANYONE.tenant)
