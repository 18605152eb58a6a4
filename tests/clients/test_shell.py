"""The commands of grpcurl in docs/clients/README.md, run as they are written."""

import os
import re
import shutil
import struct
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from tests.clients.conftest import CLIENTS, ROOT, RUN_SECONDS

import backwire as bw

PAGE = (CLIENTS / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The search path, on which grpcurl is: the real one where it is installed, and else what does the same."""
    if shutil.which("grpcurl"):
        return os.environ["PATH"]
    program = tmp_path / "grpcurl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests/clients/grpcurl.py"}" "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def shell(text: str, target: str, path: str) -> str:
    """Runs commands one after another until one fails, and returns what they printed."""
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text.replace("localhost:50051", target)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_contract_and_the_health_are_told(server: str, path: str) -> None:
    out = shell(BLOCKS[0], server, path)
    assert {"backwire_api.v1.GradientService", "grpc.health.v1.Health"} <= set(out.splitlines())
    assert "backwire_api.v1.TrainStepRequest" in out
    assert re.search(r'"status": "SERVING"', out)


def test_a_session_is_made_trained_read_and_deleted(server: str, path: str) -> None:
    out = shell("\n".join(BLOCKS[1:]), server, path)
    losses = [float(each) for each in re.findall(r'"loss": ([0-9.]+)', out)]
    assert losses == pytest.approx([36, 1.44], rel=1e-5)
    weight = re.search(r'"data": "(.*)"', out)
    assert weight is not None
    assert weight[1] == b64encode(struct.pack("<f", 2.88)).decode(), "0, then 2.4, then 2.4 + 0.1·2·1.2·2"
    with bw.connect(server) as client:
        assert list(client.sessions()) == []


def test_a_repeated_request_gives_the_first_answer(server: str, path: str) -> None:
    out = shell("\n".join([*BLOCKS[1:], ""]).replace("first second", "first first"), server, path)
    losses = [float(each) for each in re.findall(r'"loss": ([0-9.]+)', out)]
    assert losses == [36, 36]


def test_a_failure_has_the_exit_code_and_the_message(server: str, path: str) -> None:
    ask = 'grpcurl -plaintext -d \'{"sessionId": "none"}\' localhost:50051 backwire_api.v1.GradientService/GetSession'
    out = shell(f"{ask} 2>&1 || echo code $?", server, path)
    assert "none" in out
    assert out.endswith("code 69\n"), "64 and NOT_FOUND, which is 5"


def test_the_readme_has_no_other_commands() -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    shown = {line for line in readme if line.startswith("grpcurl ")}
    assert shown <= set(PAGE.splitlines()), "those are run above"
