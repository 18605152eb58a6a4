"""The store keeps its limits, its order and its promises about repeated requests."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.waiting import until

from backwire_server.engine.errors import GraphError
from backwire_server.engine.graph import Graph, Node
from backwire_server.sessions import errors
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store import sweeper
from backwire_server.sessions.store.paging import PageTokens


def test_ids_are_unguessable_and_differ(make_store: Any, dot: Any) -> None:
    sessions = make_store()
    ids = [sessions.create(UNBOUNDED, dot()).session_id for _ in range(20)]
    assert len({*ids}) == 20
    assert all(len(each) >= 24 and each.isascii() for each in ids)


def test_sessions_are_listed_in_the_order_of_creation_page_by_page(make_store: Any, dot: Any) -> None:
    sessions = make_store()
    ids = [sessions.create(UNBOUNDED, dot()).session_id for _ in range(7)]
    found, token = [], ""
    for count in (3, 3, 1):
        page = sessions.list(3, token)
        assert len(page.sessions) == count
        found += [info.session_id for info in page.sessions]
        token = page.next_token
    assert (found, token) == (ids, "")


def test_pages_stay_in_place_while_sessions_come_and_go(make_store: Any, dot: Any) -> None:
    sessions = make_store()
    ids = [sessions.create(UNBOUNDED, dot()).session_id for _ in range(4)]
    token = sessions.list(2).next_token
    for session_id in ids[:3]:
        sessions.delete(UNBOUNDED, session_id)
    new = sessions.create(UNBOUNDED, dot()).session_id
    assert [info.session_id for info in sessions.list(2, token).sessions] == [ids[3], new]


def test_a_page_holds_no_more_than_a_message(make_store: Any, dot: Any) -> None:
    sessions = make_store(max_message_bytes=8_192)
    for _ in range(5):
        sessions.create(UNBOUNDED, dot())
    assert 1 <= len(sessions.list(100).sessions) < 5


def test_a_token_that_was_not_issued_is_refused(make_store: Any) -> None:
    sessions = make_store()
    for token in ("x", "AAAA", "!!!!", "é", "A" * 10_000, PageTokens().issue(0)):
        with pytest.raises(errors.InvalidPageToken):
            sessions.list(1, token)


def test_a_negative_page_size_is_refused(make_store: Any) -> None:
    with pytest.raises(errors.InvalidRequest):
        make_store().list(-1)


def test_one_session_too_many_is_refused_until_another_ends(make_store: Any, dot: Any) -> None:
    sessions = make_store(max_sessions=2)
    first, _ = (sessions.create(UNBOUNDED, dot()).session_id for _ in range(2))
    with pytest.raises(errors.TooManySessions) as caught:
        sessions.create(UNBOUNDED, dot())
    assert caught.value.quota == "max_sessions"
    sessions.delete(UNBOUNDED, first)
    sessions.create(UNBOUNDED, dot())


def test_a_session_that_was_just_added_takes_one_place(
    make_store: Any, dot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = make_store(max_sessions=2)
    add = sessions._register.add

    def add_and_go_on(session: Any, **how: Any) -> Any:
        added = add(session, **how)
        if sessions.census == (1, 1):
            sessions.create(UNBOUNDED, dot())
        return added

    monkeypatch.setattr(sessions._register, "add", add_and_go_on)
    sessions.create(UNBOUNDED, dot())
    with pytest.raises(errors.TooManySessions):
        sessions.create(UNBOUNDED, dot())
    assert sessions.census == (2, 2)


def test_a_session_that_is_made_takes_a_place_until_it_is_there(
    make_store: Any, dot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = make_store(max_sessions=1)
    add = sessions._register.add

    def add_later(session: Any, **how: Any) -> Any:
        with pytest.raises(errors.TooManySessions):
            sessions.create(UNBOUNDED, dot())
        return add(session, **how)

    monkeypatch.setattr(sessions._register, "add", add_later)
    sessions.create(UNBOUNDED, dot())
    assert sessions.census == (1, 1)


def test_a_graph_that_is_wrong_leaves_nothing_behind(make_store: Any) -> None:
    sessions = make_store(max_sessions=1)
    graph = Graph(nodes=(Node("Nope", (), ("y",)),), outputs={"y": "y"})
    for _ in range(2):
        with pytest.raises(GraphError):
            sessions.create(UNBOUNDED, SessionSpec(graph, {}))
    assert sessions.budget.used == 0


def test_a_creation_whose_caller_is_gone_leaves_nothing_behind(make_store: Any, dot: Any, scope: Any) -> None:
    sessions = make_store()
    with pytest.raises(errors.Cancelled):
        sessions.create(scope(checks=0), dot())
    assert sessions.list().sessions == []
    assert sessions.budget.used == 0


class TestRepeatedRequests:
    def test_creation_gives_the_same_session_also_when_repetitions_race(self, make_store: Any, dot: Any) -> None:
        sessions = make_store()
        key = RequestKey("id", b"")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: sessions.create(UNBOUNDED, dot(), key), range(16)))
        assert len({info.session_id for info in found}) == 1
        assert len(sessions.list().sessions) == 1
        with pytest.raises(errors.RequestIdReused):
            sessions.create(UNBOUNDED, dot(), RequestKey("id", b"other"))

    def test_deletion_succeeds_again_only_under_its_id(self, make_store: Any, dot: Any) -> None:
        sessions = make_store()
        session_id = sessions.create(UNBOUNDED, dot()).session_id
        for _ in range(2):
            sessions.delete(UNBOUNDED, session_id, RequestKey("id", b""))
        for key in (None, RequestKey("other", b"")):
            with pytest.raises(errors.SessionNotFound):
                sessions.delete(UNBOUNDED, session_id, key)

    def test_a_failed_creation_may_be_tried_again(self, make_store: Any, dot: Any, scope: Any) -> None:
        sessions = make_store()
        key = RequestKey("id", b"")
        with pytest.raises(errors.Cancelled):
            sessions.create(scope(checks=0), dot(), key)
        assert sessions.create(UNBOUNDED, dot(), key).session_id


class TestIdleSessions:
    def test_end_after_their_time(self, make_store: Any, dot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sessions = make_store(idle_ttl=3_600.0)
        session_id = sessions.create(UNBOUNDED, dot()).session_id
        sessions.sweep()
        sessions.get(session_id)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 3_601.0)
        sessions.sweep()
        with pytest.raises(errors.SessionNotFound):
            sessions.get(session_id)
        assert sessions.budget.used == 0

    def test_are_spared_while_a_call_is_in_progress(self, make_store: Any, dot: Any) -> None:
        sessions = make_store(idle_ttl=0.01)
        session = sessions.get(sessions.create(UNBOUNDED, dot()).session_id)
        with session._turn.hold(UNBOUNDED):
            time.sleep(0.02)
            sessions.sweep()
            assert sessions.list().sessions != []

    def test_may_be_swept_while_they_are_deleted(self, make_store: Any, dot: Any) -> None:
        sessions = make_store()
        session = sessions.get(sessions.create(UNBOUNDED, dot()).session_id)
        session.close(UNBOUNDED)
        assert session.sweep() is True

    def test_are_not_kept_for_ever_unless_told(self, make_store: Any) -> None:
        assert make_store().limits.idle_ttl == 86_400
        assert make_store(idle_ttl=None).limits.idle_ttl is None

    def test_are_swept_by_a_thread(self, make_store: Any, dot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.01)
        sessions = make_store(idle_ttl=0.02)
        sessions.create(UNBOUNDED, dot())
        until(lambda: not sessions.list().sessions)
