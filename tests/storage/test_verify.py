"""`backwire verify` tells which sessions are in order and what is wrong with others, and changes nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.storage.durable import TOUR, Disk, create, damage, do, dot, standing, train
from tests.storage.journal.power import end_boot

from backwire_server import machine
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.storage import verify
from backwire_server.storage.lock import LOCK, DirectoryLock

ROOT = Path(__file__).resolve().parents[2]
WHOLE = 16, 3
"""How many mutations of the session that `full` makes follow its oldest checkpoint, and how many checkpoints it has."""

Verify = Callable[..., tuple[int, str, str]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path / "data") as made:
        made.open()
        yield made


@pytest.fixture
def run(disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Runs the command as in a process of its own; returns its status and what it wrote; nothing may have changed."""
    monkeypatch.setattr(machine, "prepare", lambda *_: None)

    def verifying(*sessions: str, directory: Path = disk.directory) -> tuple[int, str, str]:
        before = everything(disk.directory)
        monkeypatch.setattr(sys, "argv", ["verify", str(directory), *sessions])
        status = verify.main()
        told = capsys.readouterr()
        assert everything(disk.directory) == before
        return status, told.out, told.err

    return verifying


def everything(directory: Path) -> dict[str, tuple[bytes, int]]:
    """What all files hold, and their times; the lock tells who has it, and that is its business."""
    paths = (path for path in sorted(directory.rglob("*")) if path.name != LOCK)
    found = {str(path.relative_to(directory)): path for path in paths}
    return {
        name: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else (b"", 0)
        for name, path in found.items()
    }


def full(disk: Disk) -> Session:
    """A session with checkpoints of both kinds and more mutations after them."""
    session = create(disk.store)
    do(session, *list(TOUR)[:4])
    session.save_checkpoint(UNBOUNDED, "best")
    assert session.hibernate()
    do(session, *list(TOUR)[4:9])
    assert session.hibernate()
    do(session, *list(TOUR)[9:])
    return session


def in_order(session: Session, mutations: int, checkpoints: int) -> str:
    """The line that tells so of a session."""
    found = standing(session)
    told = f"step {found.step}, {mutations} mutations replayed, {checkpoints} checkpoints compared"
    return f"{session.session_id}  ok  {told}, digest {found.digest}"


def file_of(disk: Disk, session: Session, pattern: str, index: int = 0) -> Path:
    return sorted((disk.directory / "sessions" / session.session_id).glob(pattern))[index]


def test_sessions_that_are_in_order_are_told_with_what_was_compared(disk: Disk, run: Verify) -> None:
    session = full(disk)
    branch = disk.store.get(disk.store.fork(UNBOUNDED, session.session_id).session_id)
    train(1)(branch, None)
    empty = create(disk.store)
    status, out, err = run()
    lines = [
        in_order(session, *WHOLE),
        in_order(branch, 18, 2),
        in_order(empty, 0, 0),
    ]
    assert out.splitlines() == [*sorted(lines), "3 sessions: 3 in order, 0 damaged"]
    assert (status, err) == (0, "")


def test_as_json_each_session_is_a_document(disk: Disk, run: Verify) -> None:
    healthy, damaged = full(disk), create(disk.store)
    damage(file_of(disk, damaged, "session.binpb"), 5)
    status, out, err = run("--json")
    told = {each.pop("session"): each for each in map(json.loads, out.splitlines())}
    found = standing(healthy)
    mutations, checkpoints = WHOLE
    assert (status, err) == (1, "")
    assert told[healthy.session_id] == {
        "ok": True,
        "step": found.step,
        "digest": found.digest,
        "mutations": mutations,
        "checkpoints": checkpoints,
        "loss": None,
    }
    assert told[damaged.session_id]["ok"] is False
    assert "session.binpb" in told[damaged.session_id]["error"]
    assert len(told) == 2


def test_of_a_session_that_a_loss_of_power_set_back_it_is_told_what_is_lost(disk: Disk, run: Verify) -> None:
    session = create(disk.store)
    do(session, *list(TOUR)[:3])
    path = file_of(disk, session, "journal-*")
    os.truncate(path, path.stat().st_size - 3)
    end_boot(path.parent)
    status, out, _ = run()
    assert (status, "2 mutations replayed" in out) == (0, True)
    assert out.splitlines()[0].endswith(", 1 or more records after it lost with the machine's power")


def test_only_the_sessions_that_are_named_are_verified(disk: Disk, run: Verify) -> None:
    one, other = create(disk.store), create(disk.store)
    damage(file_of(disk, one, "session.binpb"), 5)
    status, out, _ = run(other.session_id)
    assert (status, out.splitlines()[-1]) == (0, "1 sessions: 1 in order, 0 damaged")
    assert one.session_id not in out


def test_a_directory_without_sessions_is_in_order(run: Verify) -> None:
    assert run() == (0, "0 sessions: 0 in order, 0 damaged\n", "")


def test_a_record_whose_writing_was_interrupted_is_no_damage_and_is_left_for_the_server(
    disk: Disk, run: Verify
) -> None:
    session = full(disk)
    with file_of(disk, session, "journal-*", -1).open("ab") as file:
        file.write(b"\x20\x00\x00\x00half a record")
    status, out, _ = run()
    assert status == 0
    assert in_order(session, *WHOLE) in out


def _last_byte(path: Path) -> None:
    damage(path, path.stat().st_size - 1)


DAMAGE: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "the middle of a segment": ("journal-*", -1, lambda path: damage(path, path.stat().st_size // 2)),
    "a segment before the newest checkpoint": ("journal-*", 0, _last_byte),
    "no segment": ("journal-*", 0, Path.unlink),
    "the newest checkpoint": ("checkpoint-*", -1, _last_byte),
    "the oldest checkpoint": ("checkpoint-*", 0, lambda path: damage(path, 100)),
    "no checkpoint": ("checkpoint-*", 0, Path.unlink),
    "a saved checkpoint": ("saved-*", 0, lambda path: damage(path, path.stat().st_size // 2)),
    "the definition": ("session.binpb", 0, lambda path: damage(path, 30)),
    "the manifest": ("manifest.json", 0, lambda path: damage(path, 30)),
    "no manifest": ("manifest.json", 0, Path.unlink),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_named_and_the_others_are_verified_all_the_same(disk: Disk, run: Verify, what: str) -> None:
    damaged, healthy = full(disk), create(disk.store)
    pattern, index, hurt = DAMAGE[what]
    path = file_of(disk, damaged, pattern, index)
    hurt(path)
    status, out, err = run()
    lines = {line.partition("  ")[0]: line for line in out.splitlines()}
    found = lines[damaged.session_id]
    assert found.startswith(f"{damaged.session_id}  DAMAGED  ")
    assert path.name in found
    if pattern == "journal-*" and path.exists():
        assert re.search(r"byte \d+", found)
    assert lines[healthy.session_id].startswith(f"{healthy.session_id}  ok  step 0")
    assert lines["2 sessions: 1 in order, 1 damaged"]
    assert (status, err) == (1, "")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_bits_that_a_replay_does_not_lead_to_are_damage(disk: Disk, run: Verify, which: int) -> None:
    session = full(disk)
    with disk.manifest(session) as manifest:
        manifest["checkpoints"][which]["digest"] = "0" * 64
    status, out, _ = run()
    assert status == 1
    assert f"{session.session_id}  DAMAGED  " in out


def test_a_directory_that_a_server_has_is_left_alone(disk: Disk, run: Verify) -> None:
    create(disk.store)
    with DirectoryLock(disk.directory):
        status, out, err = run()
    assert (status, out) == (2, "")
    assert f"in use by another server (process {os.getpid()})" in err


@pytest.mark.parametrize("name", ["sessions", "none", "file"])
def test_what_is_no_data_directory_is_told_so(disk: Disk, run: Verify, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    directory = disk.directory / "sessions" if name == "sessions" else tmp_path / name
    status, out, err = run(directory=directory)
    assert (status, out) == (2, "")
    assert err == f"backwire verify: {directory} is no data directory; give the one of --data-dir\n"
    assert not (tmp_path / "none").exists()


def test_the_command_is_one_of_backwires(disk: Disk) -> None:
    session = create(disk.store, dot())  # whole numbers, as a process of its own may round others differently
    session.train_step(UNBOUNDED, TrainCall({"x": np.array([1.0, 2.0, 4.0])}))
    before = everything(disk.directory)
    path = os.pathsep.join(str(ROOT / each) for each in ("proto", "client", "server"))
    found = subprocess.run(
        [sys.executable, "-m", "backwire", "verify", str(disk.directory)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert found.stdout.splitlines() == [in_order(session, 1, 0), "1 sessions: 1 in order, 0 damaged"]
    assert everything(disk.directory) == before
