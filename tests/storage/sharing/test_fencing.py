"""Whoever takes a session over has all that was acknowledged; what its owner before writes later does not count."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.storage.sharing.fenced import Join, made, mark
from tests.storage.sharing.servers import gone
from tests.storage.toy import append, checkpoint, history, image, mutation

from backwire_server.sessions.errors import (
    SessionError,
    StorageFailed,
    WrongReplica,
)
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.storage.sharing.shared_files import SharedFileSession
from backwire_server.storage.sharing.shared_vault import SharedVault

LEVELS = [Durability.JOURNAL, Durability.FSYNC]


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
    assert third.look("a", lambda files: files.checkpoints()) == []


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
