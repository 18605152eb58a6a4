"""Vaults: what is in a data directory, who owns it, and what becomes of what is damaged or deleted."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.toy import KEY, held, history, image, mutation, names, spec, vault

from backwire_server.sessions.errors import (
    DiskQuotaExceeded,
    SessionNotFound,
    SessionQuarantined,
    StorageFailed,
)
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.requests import RequestKey
from backwire_server.storage import deletions
from backwire_server.storage.disk import size_of
from backwire_server.storage.lock import DirectoryInUse, DirectoryLock
from backwire_server.storage.vault import FileVault

OTHER = RequestKey("delete", b"\x09")


def made(directory: Path, *session_ids: str) -> FileVault:
    """A vault with sessions, each with one mutation."""
    home = vault(directory)
    for session_id in session_ids:
        files = home.create(session_id, spec(), Durability.JOURNAL, KEY)
        files.append(mutation(1))
        files.close()
    return home


def ids(home: FileVault) -> list[str]:
    return [entry.session_id for entry in home.entries()]


def test_sessions_are_listed_in_the_order_of_their_creation_without_being_read(tmp_path: Path) -> None:
    home = made(tmp_path, "b", "a", "c")
    files = home.open("a")
    files.checkpoint(image([1]), background=False)
    files.close()
    (tmp_path / "sessions" / "c" / "session.binpb").unlink()
    found = vault(tmp_path).entries()
    assert [(each.session_id, each.dirty, each.step, each.key, each.durability) for each in found] == [
        ("b", True, 0, KEY, Durability.JOURNAL),
        ("a", False, 1, KEY, Durability.JOURNAL),
        ("c", True, 0, KEY, Durability.JOURNAL),
    ]


def test_one_damaged_session_is_quarantined_alone(tmp_path: Path) -> None:
    made(tmp_path, "a", "b")
    (tmp_path / "sessions" / "a" / "manifest.json").write_bytes(b"{}")
    home = vault(tmp_path)
    assert sorted(ids(home)) == ["a", "b"]
    with pytest.raises(SessionQuarantined, match="backwire verify"):
        home.open("a")
    assert history(home.open("b").recover()) == [1]
    home.delete("a")
    assert ids(home) == ["b"]


@pytest.mark.parametrize("session_id", ["x", "", "..", ".new-a", "a/../b", "../deleted"])
def test_a_session_that_is_not_there_is_not_found(tmp_path: Path, session_id: str) -> None:
    with pytest.raises(SessionNotFound):
        made(tmp_path, "a", "b").open(session_id)


def test_a_session_that_cannot_be_put_on_disk_leaves_nothing(tmp_path: Path) -> None:
    home = vault(tmp_path, max_disk_bytes=100)
    with pytest.raises(DiskQuotaExceeded):
        home.create("a", spec(), Durability.JOURNAL, KEY)
    assert names(tmp_path / "sessions") == []
    assert home._usage.total == 0


def test_a_session_never_takes_the_place_of_another(tmp_path: Path) -> None:
    home = made(tmp_path, "a")
    used = home._usage.total
    with pytest.raises(StorageFailed, match="there is a session 'a'"):
        home.create("a", spec(), Durability.JOURNAL, KEY)
    assert history(home.open("a").recover()) == [1]
    assert home._usage.total == used


def test_the_quota_counts_what_earlier_processes_left_until_it_is_deleted(tmp_path: Path) -> None:
    size = size_of(tmp_path / "sessions" / ids(made(tmp_path, "a"))[0])
    home = vault(tmp_path, max_disk_bytes=size + 100)
    with pytest.raises(DiskQuotaExceeded):
        home.create("b", spec(), Durability.JOURNAL, KEY)
    home.delete("a")
    home.create("b", spec(), Durability.JOURNAL, KEY)


def test_deletions_are_remembered_with_their_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = made(tmp_path, "a", "b", "c", "d")
    home.delete("a", OTHER)
    home.delete("b")
    home.delete("a", OTHER)
    assert home.deletions() == vault(tmp_path).deletions() == [("a", OTHER)]
    assert sorted(ids(home)) == ["c", "d"]
    monkeypatch.setattr(deletions, "MOST", 2)
    home.delete("c", OTHER)
    with monkeypatch.context() as changed:
        changed.setattr(time, "time", lambda: 1_000.0)  # the clock is set back
        vault(tmp_path).delete("d", OTHER)
    assert vault(tmp_path).deletions() == [("c", OTHER), ("d", OTHER)]
    assert names(tmp_path / "deleted") == ["c.json", "d.json"]


def test_a_note_of_a_deletion_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    made(tmp_path, "a").delete("a", OTHER)
    (tmp_path / "deleted" / "x.json").write_bytes(b"{")
    assert vault(tmp_path).deletions() == [("a", OTHER)]


def test_a_process_sees_and_tidies_its_own_sessions_alone(tmp_path: Path) -> None:
    made(tmp_path, "1-a", "2-b")
    sessions = tmp_path / "sessions"
    for name in (".new-1-x", ".gone-1-y", ".new-2-x", ".gone-2-y"):
        (sessions / name).mkdir()
    made(tmp_path / "other", "2-c").delete("2-c", OTHER)
    os.rename(tmp_path / "other" / "deleted" / "2-c.json", tmp_path / "deleted" / "2-c.json")
    home = vault(tmp_path, owns=lambda session_id: session_id.startswith("1-"))
    assert ids(home) == ["1-a"]
    assert home.deletions() == []
    assert names(sessions) == [".gone-2-y", ".new-2-x", "1-a", "2-b"]


def test_what_a_process_needs_no_more_is_removed_when_a_server_takes_the_directory(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path / "data"):
        scratch = Path(vault(tmp_path / "data").scratch)
        (scratch / "import").write_bytes(b"left")
    with DirectoryLock(tmp_path / "data"):
        assert names(scratch) == []


def test_a_directory_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="cannot be used"):
        vault(tmp_path / "file")


def test_two_servers_cannot_have_one_directory(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        with pytest.raises(DirectoryInUse, match=rf"^the data directory .* \(process {os.getpid()}\); end"):
            DirectoryLock(tmp_path, patience=0.0)
        lock = "import sys; from backwire_server.storage.lock import DirectoryLock; DirectoryLock(sys.argv[1], 0.0)"
        process = subprocess.run([sys.executable, "-c", lock, tmp_path], capture_output=True, text=True, timeout=60)
        assert "DirectoryInUse" in process.stderr
    DirectoryLock(tmp_path).release()


def test_many_open_sessions_need_few_descriptors(tmp_path: Path) -> None:
    before = held(tmp_path)
    home = made(tmp_path, *(f"s{number}" for number in range(50)))
    kept = [home.open(session_id) for session_id in ids(home)]
    for files in kept:
        assert history(files.recover()) == [1]
    assert held(tmp_path) == before


def test_a_directory_may_lie_in_one_that_is_written_to_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, flags: int, *mode: int, opened: Callable[..., int] = os.open, **where: int) -> int:
        if flags & os.O_DIRECTORY and path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *mode, **where)

    monkeypatch.setattr(os, "open", opened)
    with DirectoryLock(tmp_path / "data"):
        assert ids(made(tmp_path / "data", "a")) == ["a"]
