"""The client for Node in docs/clients/node, built and run as its page says."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.clients.conftest import CLIENTS, ROOT, build, check_told, needs, run
from tests.faults.proxy import Proxy

pytestmark = needs("node", "npm")

Train = Callable[[str], Sequence[str]]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains on a server, and returns the lines that the program printed."""
    folder = tmp_path_factory.mktemp("clients") / "node"
    made = shutil.ignore_patterns("node_modules", "dist", "generated")
    shutil.copytree(CLIENTS / "node", folder, ignore=made)
    build("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", cwd=folder)
    build("npm", "run", "build", cwd=folder, environment={"PROTO": str(ROOT / "proto")})

    def train(target: str) -> Sequence[str]:
        finished = run("node", folder / "dist/train.js", CLIENTS / "iris.csv", target=target)
        assert (finished.returncode, finished.stderr) == (0, "")
        return finished.stdout.splitlines()

    return train


def test_trains_fails_as_it_should_and_sends_large_tensors(train: Train, server: str) -> None:
    check_told(train(server), repeated=0)


def test_an_answer_that_is_lost_is_asked_for_again_and_no_step_is_done_twice(train: Train, lossy: Proxy) -> None:
    check_told(train(lossy.address), repeated=3)
    assert lossy.happened["lose"] == 3


def test_the_page_names_the_files_that_there_are() -> None:
    page = (CLIENTS / "node/README.md").read_text()
    named = {Path(line.split("`")[1]).name for line in page.splitlines() if line.startswith("| `src/")}
    assert named == {path.name for path in (CLIENTS / "node/src").glob("*.ts")}
