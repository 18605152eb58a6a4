"""Steps in parts on real servers: whoever is killed, helper or server, the digest is that of an undisturbed run."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.ports import unused_port
from tests.waiting import until

import backwire as bw

SECONDS = 60.0
PARTS = 3
PAUSE = 0.05
"""Between steps that wait for helpers: all are done again, and helpers need a processor to start on, too."""


def network() -> bw.Value:
    x, y = bw.input("x", ("batch", 8)), bw.input("y", ("batch",), dtype="int64")
    h = bw.dropout(bw.relu(bw.dense(x, 16, name="hidden")), 0.25)
    return bw.softmax_cross_entropy(bw.dense(h, 3, name="top"), y)


def batch(number: int) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {"x": draw.normal(size=(17, 8)), "y": draw.integers(0, 3, size=17)}


def helpers_of(pid: int) -> list[int]:
    """The processes that a server has started."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            found += map(int, path.read_text().split())
    return found


def train_until(session: bw.Session, first: int, reached: Callable[[], bool]) -> int:
    """Trains on one batch after another until something is so, and returns the number of the next."""
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline
        session.train_step(batch(first))
        first += 1
        time.sleep(PAUSE)
    return first


def test_helpers_and_servers_that_are_killed_leave_no_trace(start_server: Any, tmp_path: Path) -> None:
    flags = ("--listen", f"127.0.0.1:{unused_port()}", "--data-dir", str(tmp_path), "--max-helpers", "2")
    server = start_server(*flags)
    address = server.wait_until_ready()
    with bw.connect(address) as client:
        session = client.create_session(network(), bw.Adam(0.01), seed=5, data_parallel=PARTS)
        done, doomed = 0, list[int]()
        for _ in range(3):
            done = train_until(session, done, partial(_replaced, server.process.pid, doomed))
            doomed = helpers_of(server.process.pid)
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
        done = train_until(session, done, partial(_replaced, server.process.pid, doomed))
        doomed = helpers_of(server.process.pid)
        server.process.kill()
        server.process.wait()
    for pid in doomed:
        until(partial(_has_ended, pid))
    again = start_server(*flags)
    again.wait_until_ready()
    with bw.connect(address) as client, bw.connect("embedded") as elsewhere:
        session = client.session(session.id)
        assert session.info().step == done
        session.train_step(batch(done))
        undisturbed = elsewhere.create_session(network(), bw.Adam(0.01), seed=5)
        for number in range(done + 1):
            rows = np.array_split(np.arange(17), PARTS)
            for each in rows:
                part = {name: array[each] for name, array in batch(number).items()}
                undisturbed.forward(part).backward(weight=len(each))
            undisturbed.step(normalize="mean")
        assert session.digest() == undisturbed.digest()


def test_helpers_and_servers_that_are_killed_between_forward_and_backward_leave_no_trace(
    start_server: Any, tmp_path: Path
) -> None:
    flags = ("--listen", f"127.0.0.1:{unused_port()}", "--data-dir", str(tmp_path), "--max-helpers", "2")
    server = start_server(*flags)
    address = server.wait_until_ready()
    with bw.connect(address) as client:
        session = client.create_session(network(), bw.Adam(0.01), seed=5, data_parallel=PARTS)
        done, doomed = 0, list[int]()
        for _ in range(2):
            done = train_until(session, done, partial(_replaced, server.process.pid, doomed))
            made = session.forward(batch(done))
            doomed = helpers_of(server.process.pid)
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            made.backward()
            session.step()
            done += 1
        made = session.forward(batch(done))
        server.process.kill()
        server.process.wait()
        start_server(*flags).wait_until_ready()
        made.backward()
        session.step()
        with bw.connect("embedded") as elsewhere:
            undisturbed = elsewhere.create_session(network(), bw.Adam(0.01), seed=5, data_parallel=PARTS)
            for number in range(done + 1):
                undisturbed.train_step(batch(number))
            assert session.digest() == undisturbed.digest()


def test_sessions_that_jax_computes_have_parts_too(server_address: str) -> None:
    pytest.importorskip("jax")
    with bw.connect(server_address) as client:
        made = [
            client.create_session(network(), bw.Adam(0.01), executor="jax", data_parallel=parts)
            for parts in (PARTS, 1, PARTS)
        ]
        for number in range(3):
            made[0].train_step(batch(number))
            made[2].forward(batch(number)).backward()
            made[2].step()
            for each in np.array_split(np.arange(17), PARTS):
                part = {name: array[each] for name, array in batch(number).items()}
                made[1].forward(part).backward(weight=len(each))
            made[1].step(normalize="mean")
        assert made[0].digest() == made[1].digest() == made[2].digest()


def _replaced(pid: int, doomed: list[int]) -> bool:
    """Tells whether a server has two helpers again that were given something to compute.

    For one that ends earlier it would start no other for seconds.
    """
    found = helpers_of(pid)
    return len(found) == 2 and not set(found) & set(doomed) and all(map(_computes, found))


def _computes(pid: int) -> bool:
    try:
        return "memfd:" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def _has_ended(pid: int) -> bool:
    """Tells whether a process has, as a helper does when the one that started it has."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
