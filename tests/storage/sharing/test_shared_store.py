"""Stores over one directory: each serves what the others made, and knows when they deleted it."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.storage.sharing.servers import Start, put, value

from backwire_server.sessions.errors import (
    SessionNotFound,
    WrongReplica,
)
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.storage.checkpoints import pacing
from backwire_server.storage.sharing import shared_vault


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
    (kept,) = other.vault.look(session_id, lambda files: files._checkpoints.manifest.automatic)
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
    looked, seen = Mock(wraps=other.vault._looking.read), Mock(wraps=other.vault.names)
    monkeypatch.setattr(other.vault._looking, "read", looked)
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
