"""`connect("embedded")` with the real server: it trains, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import backwire as bw


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it has ended, and perhaps while it was looked at
        return False


def test_a_model_trains_and_the_server_ends_with_the_client() -> None:
    rng = np.random.default_rng(0)
    x_data = rng.normal(size=(64, 3))
    weights = np.array([[1.0], [-2.0], [0.5]])
    x, y = bw.input("x", ("batch", 3)), bw.input("y", ("batch", 1))
    loss = bw.squared_error(bw.dense(x, 1, name="line"), y)
    with bw.connect("embedded") as client:
        assert client._server is not None
        process = client._server._process
        directory = Path(client._server.target.removeprefix("unix:")).parent
        session = client.create_session(loss, bw.Adam(0.1))
        for _ in range(300):
            session.train_step({"x": x_data, "y": x_data @ weights + 3})
        learned = session.parameters()
    np.testing.assert_allclose(learned["line/weight"], weights, atol=1e-2)
    np.testing.assert_allclose(learned["line/bias"], [3], atol=1e-2)
    assert process.returncode == 0
    assert not directory.exists()


def test_the_server_ends_when_its_client_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = """
import backwire, time
client = backwire.connect("embedded")
print(client._server._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        assert is_alive(server)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        deadline = time.monotonic() + 30
        while is_alive(server):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_two_embedded_servers_know_nothing_of_each_other() -> None:
    with bw.connect("embedded") as first, bw.connect("embedded") as second:
        session = first.create_session(bw.mean(bw.parameter("w", (3,))))
        assert [each.id for each in first.sessions()] == [session.id]
        assert list(second.sessions()) == []
