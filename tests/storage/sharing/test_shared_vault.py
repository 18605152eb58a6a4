"""Of the servers that share a directory one alone has a session, which all of them know."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.storage.sharing.fenced import Join, made, mark
from tests.storage.toy import KEY, append, history, spec

from backwire_server.sessions.errors import (
    Recovering,
    SessionNotFound,
    StorageFailed,
    WrongReplica,
)
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.lock import DirectoryInUse, DirectoryLock
from backwire_server.storage.sharing import ownership


def test_a_session_of_a_server_that_is_alive_is_refused_with_its_address(join: Join) -> None:
    one, other = join("one"), join("other")
    made(one)
    late = join("late")
    for each in (other, late):
        with pytest.raises(WrongReplica, match="the replica 'one'") as caught:
            each.open("a")
    assert caught.value.owner == "one.example:50051"


def test_a_session_that_was_closed_is_anybodys_and_its_epoch_counts_up(join: Join, tmp_path: Path) -> None:
    one, other = join("one"), join("other")
    made(one).close()
    assert (mark(tmp_path).epoch, mark(tmp_path).replica) == (2, "")
    files = other.open("a")
    assert history(files.recover()) == [1, 2, 3]
    assert (mark(tmp_path).epoch, mark(tmp_path).replica) == (3, "other")
    files.close()
    assert history(one.open("a").recover()) == [1, 2, 3]
    assert mark(tmp_path).epoch == 5


def test_a_server_takes_what_an_earlier_run_of_itself_had(join: Join) -> None:
    made(join("one"))
    assert history(join("one").open("a").recover()) == [1, 2, 3]


def test_one_process_opens_a_session_once_at_a_time(join: Join) -> None:
    vault = join("one")
    files = made(vault)
    with pytest.raises(Recovering):
        vault.open("a")
    files.close()
    assert history(vault.open("a").recover()) == [1, 2, 3]


def test_a_branch_is_of_the_server_that_made_it_and_a_session_of_its_own(join: Join) -> None:
    one, other = join("one"), join("other")
    parent = made(one)
    branch = parent.fork("b", None)
    append(branch, 7)
    assert one.names() == other.names() == ["a", "b"]
    with pytest.raises(WrongReplica):
        other.open("b")
    branch.close()
    assert history(other.open("b").recover()) == [1, 2, 3, 7]
    assert not parent.broken


def test_all_sessions_are_listed_whoever_has_them_open(join: Join) -> None:
    one, other = join("one"), join("other")
    made(one)
    (entry,) = other.entries()
    assert (entry.session_id, entry.key, entry.dirty) == ("a", KEY, False)
    assert one.entry("a") == other.entry("a") == entry
    assert other.entry("b") is other.entry("../shared/a") is None


def test_a_session_is_deleted_by_its_owner_for_all(join: Join, tmp_path: Path) -> None:
    one, other = join("one"), join("other")
    files = made(one)
    with pytest.raises(WrongReplica):
        other.delete("a")
    files.close()
    other.delete("a", KEY)
    assert one.names() == []
    assert list((tmp_path / "shared").iterdir()) == []
    assert other.deletions() == [("a", KEY)]
    with pytest.raises(SessionNotFound):
        one.open("a")


def test_a_session_that_cannot_be_made_leaves_nothing(join: Join, tmp_path: Path, arm: Callable[[str], object]) -> None:
    vault = join("one")
    arm("create.filled=ENOSPC")
    with pytest.raises(StorageFailed):
        vault.create("a", spec(), Durability.JOURNAL, KEY)
    assert list((tmp_path / "shared").iterdir()) == []
    assert history(made(vault).recover()) == [1, 2, 3]


def test_a_session_whose_making_was_interrupted_is_none(join: Join, tmp_path: Path) -> None:
    (tmp_path / "shared" / "a" / "1.one.0123456789ab").mkdir(parents=True)
    (tmp_path / "shared" / "b").mkdir()
    vault = join("other")
    assert vault.entries() == []
    for session_id in ("a", "b"):
        with pytest.raises(SessionNotFound):
            vault.open(session_id)


def test_servers_that_share_a_directory_do_so_with_their_like_alone(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path, shared=True), DirectoryLock(tmp_path, shared=True), pytest.raises(DirectoryInUse):
        DirectoryLock(tmp_path, patience=0.0)
    with DirectoryLock(tmp_path), pytest.raises(DirectoryInUse):
        DirectoryLock(tmp_path, patience=0.0, shared=True)
    (tmp_path / "sessions" / "a").mkdir()
    with pytest.raises(OSError, match=r"without --shared.*--data-dir"):
        DirectoryLock(tmp_path, shared=True)


def test_a_server_that_has_a_session_is_taken_to_live_for_a_moment_and_no_longer(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(ownership, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one, other = join("one"), join("other")
    made(one)
    assert other.owner("a") == "one.example:50051"
    lives = other._membership.alive
    monkeypatch.setattr(other._membership, "alive", lambda *_: None)
    now[0] += 0.9 * ownership.MOMENT_SECONDS
    assert other.owner("a") == "one.example:50051"
    now[0] += 0.2 * ownership.MOMENT_SECONDS
    assert other.owner("a") == ""
    monkeypatch.setattr(other._membership, "alive", lives)
    assert other.owner("a") == "one.example:50051"


def test_a_session_is_seen_to_have_left_a_server_at_once(join: Join) -> None:
    one, other = join("one"), join("other")
    files = made(one)
    assert other.owner("a") == "one.example:50051"
    files.close()
    assert other.owner("a") == ""
