"""The client for Go in docs/clients/go, built with Debian's packages and run."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.clients.conftest import CLIENTS, ROOT, build, check_told, needs, run
from tests.faults.proxy import Proxy

LIBRARIES = Path("/usr/share/gocode")
MODULE = "src/backwire.example/go"

Train = Callable[[str], Sequence[str]]

pytestmark = [
    needs("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"),
    pytest.mark.skipif(
        not (LIBRARIES / "src/google.golang.org/grpc").is_dir(), reason="golang-google-grpc-dev not installed"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, where Go looks for it without modules."""
    place = tmp_path_factory.mktemp("clients") / MODULE
    shutil.copytree(CLIENTS / "go", place, ignore=shutil.ignore_patterns("backwirev1", "client", "go.mod", "go.sum"))
    return place


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    """Trains on a server, and returns the lines that the program printed."""
    paths = os.pathsep.join(map(str, (str(folder).removesuffix(MODULE), LIBRARIES)))
    environment = {"GO111MODULE": "off", "GOPATH": paths, "GOFLAGS": "", "PROTO": str(ROOT / "proto")}
    for command in (["generate", "."], ["vet", "."], ["build", "-o", "client", "."]):
        build("go", *command, cwd=folder, environment=environment)

    def train(target: str) -> Sequence[str]:
        finished = run(folder / "client", CLIENTS / "iris.csv", target=target)
        assert (finished.returncode, finished.stderr) == (0, "")
        return finished.stdout.splitlines()

    return train


def test_trains_fails_as_it_should_and_sends_large_tensors(train: Train, server: str) -> None:
    check_told(train(server), repeated=0)


def test_an_answer_that_is_lost_is_asked_for_again_and_no_step_is_done_twice(train: Train, lossy: Proxy) -> None:
    check_told(train(lossy.address), repeated=3)
    assert lossy.happened["lose"] == 3


def test_the_sources_are_formatted(folder: Path) -> None:
    sources = sorted(folder.glob("*.go"))
    finished = subprocess.run(["gofmt", "-l", *sources], capture_output=True, text=True, check=True)
    assert finished.stdout == ""


def test_the_page_names_the_files_that_there_are() -> None:
    page = (CLIENTS / "go/README.md").read_text()
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `") and ".go`" in line}
    assert named == {path.name for path in (CLIENTS / "go").glob("*.go")}
