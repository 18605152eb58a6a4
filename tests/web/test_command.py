"""`backwire web` as a program, of a server with workers and tokens; and docs/looking.md."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.access.conftest import entry, new_token, write
from tests.e2e.conftest import PACKAGES, ServerProcess, start_server
from tests.web.calling import Caller
from tests.web.conftest import TARGET

import backwire as bw
from backwire._cli import _main
from backwire._web import _server

__all__ = ["start_server"]

PAGE = (Path(__file__).parents[2] / "docs/looking.md").read_text()
SECONDS = 60.0

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, token: str = "") -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKWIRE_")}
        command = ["env", "--default-signal=INT", sys.executable, "-m", "backwire", "web", *arguments]
        environment = {**inherited, "PYTHONPATH": PACKAGES, "BACKWIRE_TOKEN": token}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_workers_and_tokens_are_looked_at_as_any_client_does(
    run: Run, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    trainer, reader, stranger = (new_token() for _ in range(3))
    entries = [entry(trainer), entry(reader, scope='"read"'), entry(stranger, tenant='"umbrella"')]
    tokens = write(tmp_path / "tokens.toml", entries)
    target = start_server("--tokens", str(tokens), "--workers", "2").wait_until_ready()
    with bw.connect(target, token=trainer) as client:
        w = bw.parameter("w", [1.0, 2.0])
        sessions = [client.create_session(bw.sum(w * w), bw.SGD(0.25)) for _ in range(3)]
        for session in sessions:
            session.train_step({})
        ids = {each.id for each in sessions}
        caller = Caller(first_line(run("--target", target, token=reader)))
        _, document = caller.get("/api/status")
        assert ({each["id"] for each in document["sessions"]}, document["load"]) == (ids, None)
        for session in sessions:
            _, document = caller.get(f"/api/history?session={session.id}")
            assert [each["loss"] for each in document["steps"]] == [5.0]
            assert caller.get(f"/api/graph?session={session.id}")[1]["parameter_count"] == 2
        other = Caller(first_line(run("--target", target, token=stranger)))
        assert other.get("/api/status")[1]["sessions"] == []
        for path in ("history", "graph"):
            assert other.get(f"/api/{path}?session={sessions[0].id}")[0] == 404
        nobody = Caller(first_line(run("--target", target)))
        status, document = nobody.get("/api/status")
        assert (status, "token" in document["error"]) == (502, True)


def test_it_ends_when_it_is_interrupted(run: Run) -> None:
    process = run("--json")
    url = json.loads(first_line(process))["url"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#key=[\w-]{32}", url)
    assert Caller(url).get("/api/history")[0] == 400
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_there_is_not_is_wrong_usage(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main.main(["web", f"--port={port}"])
    assert (ended.value.code, "--port" in capsys.readouterr().err) == (2, True)


def test_a_port_that_is_taken_is_told_in_a_line(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["web", "--port", str(Caller(page).port), "--target", TARGET]) == 1
    assert capsys.readouterr().err.endswith("choose another --port\n")


def test_the_document_has_the_figures_of_the_program() -> None:
    assert f"for longer than {_server.PATIENCE:.0f} seconds" in PAGE
    assert (_server.MOST_CLIENTS, "Sixteen connections at most" in PAGE) == (16, True)
    assert f"It listens on {_server.HOST}," in PAGE


def test_the_example_of_the_document_writes_event_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(example, {})
    (file,) = (tmp_path / "runs/first").iterdir()
    assert set(re.findall(rb"(?:step|epoch|validation)/\w+", file.read_bytes())) == {
        *(b"step/loss", b"step/gradient_norm", b"step/learning_rate", b"epoch/loss", b"validation/loss"),
    }
