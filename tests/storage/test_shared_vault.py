"""Of the servers that share a directory one alone has a session, and what another writes afterwards does not count."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
from tests.storage.toy import KEY, append, checkpoint, history, image, mutation, spec

from backwire_server.sessions.durable import Durability
from backwire_server.sessions.errors import (
    Recovering,
    SessionError,
    SessionNotFound,
    StorageFailed,
    WrongReplica,
)
from backwire_server.sessions.limits import Limits
from backwire_server.storage import ownership
from backwire_server.storage.lock import DirectoryInUse, DirectoryLock
from backwire_server.storage.ownership import Mark
from backwire_server.storage.shared_files import SharedFileSession
from backwire_server.storage.shared_vault import SharedVault

Join = Callable[[str], SharedVault]

LEVELS = [Durability.JOURNAL, Durability.FSYNC]
LEASE = 3_600.0
"""Longer than any test: who is alive is what the files told when a server joined."""


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Has another server join those on the directory."""
    joined: list[SharedVault] = []

    def join(replica: str) -> SharedVault:
        found = SharedVault(tmp_path, replica=replica, lease=LEASE, default=Durability.JOURNAL, limits=Limits())
        found.announce(f"{replica}.example:50051")
        joined.append(found)
        return found

    yield join
    for each in joined:
        each.close()


def made(vault: SharedVault, durability: Durability = Durability.JOURNAL) -> SharedFileSession:
    """A session `a` with three mutations, which is open."""
    files = vault.create("a", spec(), durability, KEY)
    append(files, 1, 2, 3)
    return files


def gone(directory: Path, replica: str) -> None:
    """Makes those who join from now on believe that a server is dead, which knows nothing of that."""
    (directory / "replicas" / replica).unlink()


def mark(directory: Path) -> Mark:
    (found,) = (directory / "shared" / "a").iterdir()
    told = Mark.of(found.name)
    assert told is not None
    return told


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


@pytest.mark.parametrize("durability", LEVELS)
def test_an_owner_that_was_taken_for_dead_writes_nothing_that_counts(
    join: Join, tmp_path: Path, durability: Durability
) -> None:
    fenced = made(join("one"), durability)
    gone(tmp_path, "one")
    files = join("other").open("a")
    assert history(files.recover()) == [1, 2, 3]
    with pytest.raises(WrongReplica, match="the replica 'other'"):
        fenced.append(mutation(99))
    assert fenced.broken
    append(files, 4)
    fenced.close()
    files.close()
    assert history(join("third").open("a").recover()) == [1, 2, 3, 4]


@pytest.mark.parametrize("durability", LEVELS)
def test_a_record_that_is_written_after_the_take_over_is_read_by_nobody(
    join: Join, tmp_path: Path, durability: Durability
) -> None:
    fenced = made(join("one"), durability)
    gone(tmp_path, "one")
    files = join("other").open("a")
    fenced._journal.append(mutation(99))  # it looked for its mark before, and was paused
    assert history(files.recover()) == [1, 2, 3]
    fenced._journal.append(mutation(100))
    append(files, 4)
    files.close()
    assert history(join("third").open("a").recover()) == [1, 2, 3, 4]


@pytest.mark.parametrize("durability", LEVELS)
def test_a_record_that_is_acknowledged_is_known_to_whoever_takes_over(
    join: Join, tmp_path: Path, durability: Durability
) -> None:
    one = made(join("one"), durability)
    gone(tmp_path, "one")
    other = join("other")
    acknowledged = [1, 2, 3]
    start = Barrier(2)

    def write() -> None:
        start.wait()
        for value in range(4, 2_000):
            try:
                one.append(mutation(value))
            except WrongReplica:
                return
            acknowledged.append(value)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        start.wait()
        found = history(other.open("a").recover())
        writing.result()
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) - len(acknowledged) in (0, 1)  # one was on its way, and is known though not acknowledged


def test_what_a_fenced_owner_does_by_name_changes_nothing(join: Join, tmp_path: Path) -> None:
    fenced = made(join("one"))
    gone(tmp_path, "one")
    files = join("other").open("a")
    append(files, 4)
    with pytest.raises(StorageFailed):
        checkpoint(fenced, 66, 77)
    with pytest.raises(StorageFailed):
        fenced.save("mine", image([66])).result()
    with pytest.raises(SessionError):
        fenced.fork("b", None)
    assert not (tmp_path / "shared" / "b").exists()
    fenced.close()
    assert files.checkpoints() == []
    files.close()
    third = join("third")
    assert history(third.open("a").recover()) == [1, 2, 3, 4]
    assert third.look("a").checkpoints() == []


def test_of_many_that_take_over_at_once_one_does(join: Join, tmp_path: Path) -> None:
    made(join("one"))
    for epoch in range(2, 12):
        (tmp_path / "replicas").joinpath(mark(tmp_path).replica).unlink(missing_ok=True)
        rivals = [join(f"rival-{epoch}-{number}") for number in range(4)]
        start = Barrier(len(rivals))

        def take(rival: SharedVault, start: Barrier = start) -> SharedFileSession | None:
            start.wait()
            try:
                return rival.open("a")
            except WrongReplica:
                return None

        with ThreadPoolExecutor(len(rivals)) as pool:
            found = [files for files in pool.map(take, rivals) if files is not None]
        assert len(found) == 1
        assert mark(tmp_path).epoch == epoch
        assert history(found[0].recover()) == [1, 2, 3]


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


def test_a_server_that_has_a_session_is_taken_to_have_it_for_a_moment_and_no_longer(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(ownership, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one, other = join("one"), join("other")
    files = made(one)
    assert other.owner("a") == "one.example:50051"
    files.close()
    now[0] += 0.9 * ownership.MOMENT_SECONDS
    assert other.owner("a") == "one.example:50051"
    now[0] += 0.2 * ownership.MOMENT_SECONDS
    assert other.owner("a") == ""
