"""A server that splits batches over devices of JAX trains what one with a single device does."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.test_executors import network, trained

import backwire as bw

pytest.importorskip("jax")

Start = Callable[..., Any]
FOUR = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
FLAGS = ("--executor", "jax", "--jax-devices", "4")


def test_training_agrees_with_one_device_and_is_replayed_to_the_bit(
    start_server: Start, server_address: str, tmp_path: Path
) -> None:
    with bw.connect(server_address) as client:
        session = client.create_session(network(), bw.Adam(0.01), seed=3, executor="jax")
        expected, values = trained(session), session.parameters()
    server = start_server(*FLAGS, "--data-dir", str(tmp_path), environment=FOUR)
    with bw.connect(server.wait_until_ready()) as client:
        twins = [client.create_session(network(), bw.Adam(0.01), seed=3) for _ in range(2)]
        for session in twins:
            np.testing.assert_allclose(np.array(trained(session), "f8"), np.array(expected, "f8"), rtol=1e-4)
        for name, value in twins[0].parameters().items():
            np.testing.assert_allclose(value, values[name], rtol=1e-3, atol=1e-5)
        digests = {session.digest() for session in twins}
        names = [session.id for session in twins]
    server.signal(signal.SIGKILL)
    server.wait()
    server = start_server(*FLAGS, "--data-dir", str(tmp_path), environment=FOUR)
    with bw.connect(server.wait_until_ready()) as client:
        assert {client.session(name).digest() for name in names} == digests
    assert len(digests) == 1
    assert not any("bits may differ" in line for line in server.errors)


def test_a_journal_tells_how_many_devices_it_was_computed_on(start_server: Start, tmp_path: Path) -> None:
    x = bw.input("x", ("batch", 8))
    line, batch = bw.mean(bw.dense(x, 1, name="line")), {"x": np.ones((4, 8), "f4")}
    server = start_server(*FLAGS, "--data-dir", str(tmp_path), environment=FOUR)
    with bw.connect(server.wait_until_ready()) as client:
        session = client.create_session(line, bw.SGD(0.01))
        session.train_step(batch)
        name = session.id
    server.signal(signal.SIGKILL)
    server.wait()
    server = start_server("--data-dir", str(tmp_path))
    with bw.connect(server.wait_until_ready()) as client:
        assert client.session(name).train_step(batch).step == 2
    server.signal()
    server.wait()
    assert any("bits may differ" in line and "on 4 devices" in line for line in server.errors)


def test_devices_that_are_not_there_are_told_when_a_session_wants_them(start_server: Start) -> None:
    address = start_server("--jax-devices", "3").wait_until_ready()
    with bw.connect(address) as client:
        client.create_session(network(), bw.SGD(0.01), executor="numpy")
        with pytest.raises(bw.ExecutorUnavailableError, match="over 3 devices, and JAX finds 1 there"):
            client.create_session(network(), bw.SGD(0.01), executor="jax")
