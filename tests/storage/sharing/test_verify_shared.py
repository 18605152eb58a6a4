"""`backwire verify` tells of a directory that servers share, also while they use it."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.storage.durable import TOUR, create, damage, do, standing, train

from backwire_server import machine
from backwire_server.sessions.info import Home
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.storage import verification, verify
from backwire_server.storage.lock import DirectoryLock
from backwire_server.storage.manifest import MANIFEST
from backwire_server.storage.sharing.shared_vault import SharedVault

ROUNDS = 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    """A server that has the directory together with others, and a checkpoint after every few records."""
    with DirectoryLock(tmp_path, shared=True):
        vault = SharedVault(
            tmp_path, replica="a", lease=60.0, default=Durability.JOURNAL, limits=Limits(), checkpoint_bytes=2_000
        )
        made = SessionStore(Limits(), Home(replica="a"), vault)
        yield made
        made.close()


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, list[str]]]:
    """Runs the command as in a process of its own; returns its status and the lines that it wrote."""
    monkeypatch.setattr(machine, "prepare", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["verify", str(tmp_path)])

    def verifying() -> tuple[int, list[str]]:
        status = verify.main()
        told = capsys.readouterr()
        assert told.err == ""
        return status, told.out.splitlines()

    return verifying


def place(directory: Path, session: Session) -> Path:
    (mark,) = (directory / "shared" / session.session_id).iterdir()
    return mark / session.session_id


def test_a_session_that_a_server_has_open_is_verified_where_it_stands(store: SessionStore, run: Callable) -> None:
    session = create(store)
    do(session, *TOUR)
    status, (line, count) = run()
    assert (status, count) == (0, "1 sessions: 1 in order, 0 damaged")
    assert f"step {standing(session).step}, " in line
    assert line.endswith(standing(session).digest)


def test_a_session_that_is_trained_meanwhile_is_in_order_each_time(store: SessionStore, run: Callable) -> None:
    session, ended = create(store), threading.Event()

    def training() -> None:
        while not ended.is_set():
            train(1)(session, None)

    thread = threading.Thread(target=training)
    thread.start()
    try:
        found = [run() for _ in range(ROUNDS)]
    finally:
        ended.set()
        thread.join()
    assert [status for status, _ in found] == [0] * ROUNDS, found


def test_damage_is_told_with_the_file(store: SessionStore, run: Callable, tmp_path: Path) -> None:
    session = create(store)
    do(session, *TOUR)
    file = place(tmp_path, session) / "session.binpb"
    damage(file, 5)
    status, (line, count) = run()
    assert (status, count) == (1, "1 sessions: 0 in order, 1 damaged")
    assert str(file) in line


def test_a_session_that_is_being_made_is_left_out(store: SessionStore, run: Callable, tmp_path: Path) -> None:
    (tmp_path / "shared" / "d_000begun" / "1.b.abc").mkdir(parents=True)
    assert run() == (0, ["0 sessions: 0 in order, 0 damaged"])
    del store


def test_a_session_that_changes_hands_while_it_is_copied_is_in_order(
    store: SessionStore, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = create(store)
    do(session, *TOUR)
    mark, exists, moved = place(tmp_path, session).parent, Path.exists, list[Path]()

    def moving(path: Path) -> bool:
        if path.name == MANIFEST and not moved:
            moved.append(mark.rename(mark.with_name("9.")))
        return exists(path)

    monkeypatch.setattr(Path, "exists", moving)
    assert run()[1][-1] == "1 sessions: 1 in order, 0 damaged"
    assert moved


def test_a_session_that_is_deleted_before_it_is_copied_is_left_out_unless_it_was_asked_for(
    store: SessionStore, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(store).session_id, "d_000deleted"]
    monkeypatch.setattr(verification, "session_ids", lambda _: ids)
    assert run()[1][1:] == ["1 sessions: 1 in order, 0 damaged"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, *ids])
    assert run()[1][2:] == ["2 sessions: 1 in order, 1 damaged"]
