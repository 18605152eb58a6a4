"""The command line, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health_pb2

import backwire as bw
from backwire._cli import _main
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = _main.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_documents_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "serve",
        "demo",
        "describe",
        "check-gradients",
        "health",
        "ops",
        "sessions",
        "top",
        "watch",
        "verify",
        "version",
        "exit codes",
        "130",
    ):
        assert word in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["health", "--timeout", "0"],
        ["demo", "--epochs", "0"],
        ["describe"],
        ["describe", "m.onnx", "--shape", "x"],
        ["describe", "m.onnx", "--shape", "x=a"],
        ["describe", "m.onnx", "--shape", "x=-1"],
        ["describe", "m.onnx", "--optimizer", "best"],
        ["check-gradients", "m.onnx", "--elements", "0"],
        ["check-gradients", "m.onnx", "--seed", "-1"],
        ["check-gradients", "m.onnx", "--tolerance", "nan"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main.main(arguments)
    assert ended.value.code == 2


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "version") == (0, f"backwire {bw.__version__}\n", "")


def test_python_m_backwire_is_the_same(target: str) -> None:
    command = [sys.executable, "-m", "backwire", "health", "--target", target]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout == "SERVING\n"


def test_health_exits_with_0_only_when_serving(
    target: str, health_servicer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "health", "--target", target) == (0, "SERVING\n", "")
    health_servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert run(capsys, "health", "--target", target) == (1, "NOT_SERVING\n", "")
    assert run(capsys, "health", "--alive", "--target", target) == (0, "NOT_SERVING\n", "")


def test_health_of_a_server_that_is_not_there_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "health", "--alive", "--target", "127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("backwire: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [["sessions"], ["sessions", "list"], ["watch", "s-1"], ["top", "--once"], ["ops"]])
def test_nothing_is_printed_of_a_server_that_is_not_there(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main.main([*command, "--target", "127.0.0.1:1", "--timeout", "0.05"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


def test_a_server_is_found_as_connect_finds_it(
    target: str,
    session: bw.Session,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert session.info().step == 0
    monkeypatch.setenv("BACKWIRE_TARGET", target)
    assert run(capsys, "health") == (0, "SERVING\n", "")
    assert "session-0" in run(capsys, "sessions", "list")[1]
    assert run(capsys, "health", "--target", "127.0.0.1:1")[0] == 1
    monkeypatch.delenv("BACKWIRE_TARGET")
    (tmp_path / "config.toml").write_text(f'[default]\ntarget = "{target}"\n')
    monkeypatch.setenv("BACKWIRE_CLIENT_CONFIG", str(tmp_path / "config.toml"))
    assert run(capsys, "health") == (0, "SERVING\n", "")
    monkeypatch.setenv("BACKWIRE_PROFILE", "none")
    code, out, err = run(capsys, "health")
    assert (code, out) == (1, "")
    assert "has no profile 'none'" in err


def test_sessions_are_listed_with_their_state(
    target: str, session: bw.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.step()
    code, out, _ = run(capsys, "sessions", "--target", target)
    header, row = out.splitlines()
    assert code == 0
    assert header.split() == ["SESSION", "STEP", "PENDING", "PARAMETERS", "PASSES", "CREATED"]
    assert row.split() == ["session-0", "1", "0", "8", "0", "2023-11-14", "22:13:20Z"]


def test_a_session_is_shown_with_its_writer_and_checkpoints(
    target: str, session: bw.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "sessions", "--target", target, "show", session.id)
    assert code == 0
    assert re.search(r"^writer +anybody$", out, re.MULTILINE)
    assert "CHECKPOINT" not in out
    session.attach(holder="trainer-1")
    session.save_checkpoint("best")
    code, out, _ = run(capsys, "sessions", "show", session.id, "--target", target)
    assert code == 0
    for line in (
        r"durability +journal",
        r"writer +trainer-1 \(lease 1\)",
        r"parameters +8 in 3 arrays",
        r"optimizer +sgd",
        r"digest +0{64}",
        r"best +0 +1 kB +2023-11-14 22:13:20Z +(ab){8}",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), line


def test_sessions_are_forked_deleted_and_moved_in_and_out_of_files(
    target: str, session: bw.Session, service: "FakeService", capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    service.file, path = b"a whole session", tmp_path / "file"
    assert run(capsys, "sessions", "fork", session.id, "--target", target) == (0, "session-1\n", "")
    assert run(capsys, "sessions", "move", session.id, "--to", "b", "--target", target) == (0, "", "")
    assert service.requests["MoveSession"][0].replica == "b"
    assert run(capsys, "sessions", "export", session.id, str(path), "--target", target) == (0, "", "")
    assert path.read_bytes() == service.file
    arguments = ("sessions", "import", str(path), "--durability", "fsync", "--target", target)
    assert run(capsys, *arguments) == (0, "session-2\n", "")
    assert service.requests["ImportSession"][0].durability == service_pb2.DURABILITY_FSYNC
    assert run(capsys, "sessions", "delete", session.id, "--target", target) == (0, "", "")
    assert set(service.sessions) == {"session-1", "session-2"}
    assert run(capsys, "sessions", "list", "--target", target)[1].count("\n") == 3
    code, _, error = run(capsys, "sessions", "delete", session.id, "--target", target)
    assert (code, error.count("\n")) == (1, 1)


def test_a_file_that_is_not_there_is_one_line(target: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, error = run(capsys, "sessions", "import", str(tmp_path / "none"), "--target", target)
    assert (code, error.count("\n")) == (1, 1)
    assert "none" in error


def test_a_failing_call_is_one_line_and_exit_code_1(
    target: str, service: "FakeService", refuse: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import grpc

    service.before["ListSessions"] = [refuse(grpc.StatusCode.UNAUTHENTICATED, "the token is missing; pass one")]
    code, out, err = run(capsys, "sessions", "--target", target)
    assert (code, out, err) == (1, "", "backwire: the token is missing; pass one\n")


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backwire._wire._health.health", interrupt)
    assert run(capsys, "health")[0] == 130


def test_a_reader_that_has_seen_enough_is_no_error(target: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-u", "-m", "backwire", "health", "--target", target]
    with os.fdopen(write, "wb") as out:
        finished = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize(("name", "module"), [("serve", "__main__.py"), ("verify", "storage/verify.py")])
def test_a_command_of_the_server_becomes_it_and_passes_its_arguments_through(
    name: str, module: str, tmp_path: Path
) -> None:
    package = tmp_path / "backwire_server"
    (package / "storage").mkdir(parents=True)
    for folder in (package, package / "storage"):
        (folder / "__init__.py").touch()
    (package / module).write_text("import os, sys; print(os.getpid(), *sys.argv[1:]); sys.exit(7)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "backwire", name, "--listen", "127.0.0.1:0", "--help"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert out.split() == [str(process.pid), "--listen", "127.0.0.1:0", "--help"]
    assert process.returncode == 7


@pytest.mark.parametrize("missing", ["matplotlib", "sklearn", "tqdm"])
def test_a_demo_without_its_extra_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "backwire._demo", raising=False)
    monkeypatch.delattr(bw, "_demo", raising=False)
    for name in [each for each in sys.modules if each.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    code, out, err = run(capsys, "demo")
    assert (code, out) == (1, "")
    assert err == f"backwire: the demo needs {missing}; run: pip install 'backwire[demo]'\n"
