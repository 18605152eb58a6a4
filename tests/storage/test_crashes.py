"""Whatever a process is interrupted in, the next one finds what was true before it or what would have been after it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.storage.crashes import FAILED, KILLED, Model
from tests.storage.toy import history, image, mutation, names, vault

from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.storage import failpoints
from backwire_server.storage.manifest import read_manifest
from backwire_server.storage.vault import FileVault

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["kill", "EIO"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """What happened to the processes, and the directories that they left."""
    root = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "tests.storage.crashes", str(root), request.param]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    return request.param, sorted(root.iterdir())


@pytest.fixture
def without_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has nothing be flushed, as in the processes that were interrupted."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)


def observed(home: FileVault) -> Model:
    """What every session in a vault has."""
    found: Model = {}
    for entry in home.entries():
        files = home.open(entry.session_id)
        saved = {each.name: files.load(each.name).state.parameters["w"] for each in files.checkpoints() if each.name}
        found[entry.session_id] = {
            "history": history(files.recover()),
            "saved": {name: [int(value) for value in array] for name, array in saved.items()},
        }
        files.close()
    return found


def go_on(home: FileVault) -> None:
    """Adds to every session, with a checkpoint in between."""
    for name, was in observed(home).items():
        files = home.open(name)
        files.wait(files.append(mutation(100)), UNBOUNDED)
        files.checkpoint(image([*was["history"], 100]), background=False)
        files.wait(files.append(mutation(101)), UNBOUNDED)
        files.close()


def check_tidy(directory: Path) -> None:
    """No file is left over in a session's directory."""
    counting = {each.file for each in read_manifest(directory).checkpoints}
    rest = {name for name in names(directory) if not name.startswith("journal-")}
    assert rest == counting | {"manifest.json", "session.binpb"}


def test_every_failpoint_was_passed_and_interrupted_its_process(runs: tuple[str, list[Path]]) -> None:
    action, directories = runs
    ends: dict[str, set[int]] = {}
    for path in directories:
        ends.setdefault(path.name.partition("@")[0], set()).add(int((path / "end").read_text()))
    assert ends.pop("whole") == {0}
    assert set(ends) == set(failpoints.NAMES)
    if action == "kill":
        assert {name: found for name, found in ends.items() if found != {KILLED}} == {}
    else:
        assert set().union(*ends.values()) <= {0, FAILED}, "what removes old files may fail without harm"


@pytest.mark.usefixtures("without_flushes")
def test_a_session_is_as_before_or_as_after_what_was_interrupted(runs: tuple[str, list[Path]]) -> None:
    for path in runs[1]:
        allowed = json.loads((path / "log").read_text().splitlines()[-1])
        home = vault(path / "data")
        found = observed(home)
        assert found in allowed, path
        assert names(path / "data" / "sessions") == sorted(found), path
        if len(allowed) == 2 and "b" in allowed[0] and "b" not in found:
            assert [session_id for session_id, _ in home.deletions()] == ["b"], path
        home.close()


@pytest.mark.usefixtures("without_flushes")
def test_a_session_goes_on_after_what_was_interrupted(runs: tuple[str, list[Path]]) -> None:
    for path in runs[1]:
        home = vault(path / "data")
        before = observed(home)
        go_on(home)
        home.close()
        after = observed(vault(path / "data"))
        added = {name: {**was, "history": [*was["history"], 100, 101]} for name, was in before.items()}
        assert after == added, path
        for name in after:
            check_tidy(path / "data" / "sessions" / name)
