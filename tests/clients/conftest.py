"""A real server for clients in other languages, and a way to it that loses answers."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import ServerProcess
from tests.faults.connection_faults import Fault
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "docs/clients"
STEPS = 360
BUILD_SECONDS = 600.0
RUN_SECONDS = 120.0


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    process = ServerProcess("--listen", "127.0.0.1:0", "--reflection")
    try:
        yield process.wait_until_ready()
    finally:
        process.end()


@pytest.fixture
def lossy(server: str) -> Iterator[Proxy]:
    """A way to the server on which answers to steps are lost, so that the client cannot know whether they were done."""
    with Proxy(server, [Fault("lose", after, reset=after % 2 == 0) for after in (20, 41, 60)]) as proxy:
        yield proxy


def build(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a tool, and shows what it said when it fails."""
    finished = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"


def run(*command: str | Path, target: str) -> subprocess.CompletedProcess[str]:
    """Runs a client against a server."""
    environment = {**os.environ, "BACKWIRE_TARGET": target, "PROTO": str(ROOT / "proto")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)


def needs(*tools: str) -> Any:
    """Skips tests where a toolchain is not installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def check_told(lines: Sequence[str], *, repeated: int) -> None:
    """Checks what the program told: each client prints the same lines."""
    step, accuracy, shape, deadline, large, last = lines
    assert step.startswith(f"step {STEPS}, loss 0."), "each step was applied once"
    assert accuracy.endswith(" on 30 flowers never trained on")
    assert float(accuracy.split()[1]) >= 0.9
    assert shape == "refused: INVALID_ARGUMENT SHAPE_MISMATCH"
    assert deadline == "refused: DEADLINE_EXCEEDED"
    assert large == "large: 16777216 bytes came back, the same; their sum is 2097152"
    assert int(last.removeprefix("repeated: ").split()[0]) == repeated
