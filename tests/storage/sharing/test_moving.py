"""Sessions are moved from one of the servers over a directory to another, and are nobody else's then."""

from pathlib import Path

import pytest
from tests.storage.sharing.servers import Start, gone, put, value

from backwire_server.sessions.errors import (
    ExecutorUnavailable,
    InvalidRequest,
    WrongReplica,
)
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.training import models


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


def test_a_session_does_not_move_to_a_server_that_is_not_there_and_goes_on(start: Start, tmp_path: Path) -> None:
    one, _ = start("a"), start("b")
    session_id = one.create()
    put(one.store.get(session_id), 5)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest, match="name one of: a, b"):
        one.store.get(session_id).move(UNBOUNDED, "c")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written for nothing, however often it asks"
    put(one.store.get(session_id), 6)


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
