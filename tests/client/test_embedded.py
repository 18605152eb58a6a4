"""The life of an embedded server's process, with a stand-in for the server."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import until

import backwire as bw
from backwire import _embedded

STAND_IN = """
import argparse, os, sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

parser = argparse.ArgumentParser()
parser.add_argument("--listen")
parser.add_argument("--workers", choices=["1"], required=True)
parser.add_argument("--exit-with-parent", action="store_true", required=True)
target = parser.parse_args().listen
server = grpc.server(ThreadPoolExecutor(2))
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
server.add_insecure_port(target)
server.start()
print("serving", file=sys.stderr, flush=True)
sys.stdin.buffer.read()
server.stop(None).wait()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes `python -m backwire_server` run this program."""

    def install(program: str) -> None:
        package = tmp_path / "stand_in" / "backwire_server"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)
        path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", path)

    return install


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_socket_belongs_to_this_user_and_goes_with_the_server(stand_in: Callable[[str], None]) -> None:
    stand_in(STAND_IN)
    server = _embedded.EmbeddedServer()
    directory = Path(server.target.removeprefix("unix:")).parent
    pid = server._process.pid
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "sock").is_socket()
    server.stop()
    server.stop()
    assert not directory.exists()
    assert not is_alive(pid)


def test_a_client_ends_its_server(stand_in: Callable[[str], None]) -> None:
    stand_in(STAND_IN)
    with bw.connect("embedded") as client:
        assert client._server is not None
        pid = client._server._process.pid
        assert is_alive(pid)
    assert not is_alive(pid)


def test_a_server_that_fails_to_start_says_why(stand_in: Callable[[str], None]) -> None:
    stand_in("import sys; sys.exit('no room on this ship')")
    with pytest.raises(bw.ServerStartError, match=r"ended with exit code 1:\nno room on this ship"):
        bw.connect("embedded")


def test_a_server_that_never_serves_is_given_up(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_embedded, "START_TIMEOUT", 0.5)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    stand_in("import sys; sys.stdin.read()")
    with pytest.raises(bw.ServerStartError, match=r"did not serve within 0.5 s"):
        bw.connect("embedded")
    assert not list(tmp_path.glob("backwire-*"))


def test_a_long_temporary_directory_still_gives_a_socket(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    stand_in(STAND_IN)
    with bw.connect("embedded"):
        pass
    assert not list(long.iterdir())


@pytest.mark.parametrize("how", ["exit", "kill", "forget"])
def test_the_server_does_not_outlive_its_client(
    how: str, stand_in: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(STAND_IN)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    endings = {"exit": "", "kill": "import time; time.sleep(60)", "forget": "del client; import time; time.sleep(60)"}
    program = f"""
import backwire
client = backwire.connect("embedded")
print(client._server._process.pid, flush=True)
{endings[how]}
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        if how == "kill":
            process.send_signal(signal.SIGKILL)
        until(lambda: not is_alive(pid))
        if how == "exit":
            assert process.wait(30) == 0
        process.kill()


def test_what_a_killed_client_left_behind_is_removed_by_the_next(
    stand_in: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(STAND_IN)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = "import backwire; client = backwire.connect('embedded'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    (abandoned,) = tmp_path.glob("backwire-*")
    long_ago = time.time() - 3600
    with bw.connect("embedded"):
        assert abandoned.exists(), "it could be one that is just starting"
        for directory in tmp_path.glob("backwire-*"):
            os.utime(directory, (long_ago, long_ago))
        until(lambda: not _is_locked(abandoned / "server.log"))
        with bw.connect("embedded"):
            assert not abandoned.exists()
            assert len(list(tmp_path.glob("backwire-*"))) == 2
    assert not list(tmp_path.glob("backwire-*"))


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_an_interrupt_of_the_client_leaves_the_server_alone(stand_in: Callable[[str], None]) -> None:
    stand_in(STAND_IN)
    with bw.connect("embedded") as client:
        assert client._server is not None
        assert os.getsid(client._server._process.pid) != os.getsid(0)


def test_the_message_of_a_missing_server_names_the_module(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("raise ModuleNotFoundError('No module named numpy')")
    with pytest.raises(bw.ServerStartError, match=re.compile("No module named numpy")):
        bw.connect("embedded")
    monkeypatch.undo()


def test_sessions_in_a_directory_are_there_for_the_next_server(tmp_path: Path) -> None:
    loss = bw.squared_error(bw.parameter("p", 1.0), 2.0)
    with bw.connect("embedded", data_dir=tmp_path / "data") as client:
        session = client.create_session(loss, bw.SGD(0.1))
        session.train_step({})
        digest = session.digest()
    with bw.connect("embedded", data_dir=tmp_path / "data") as client:
        assert [each.id for each in client.sessions()] == [session.id]
        assert client.session(session.id).digest() == digest


def test_another_server_is_not_told_where_to_keep_sessions(tmp_path: Path) -> None:
    with pytest.raises(bw.InvalidRequestError, match="--data-dir"):
        bw.connect("127.0.0.1:1", data_dir=tmp_path)
