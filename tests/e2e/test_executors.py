"""Sessions that compute by JAX are sessions like all others: only the last bits of their numbers are their own."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import backwire as bw

pytest.importorskip("jax")

Array = NDArray[Any]
Start = Callable[..., Any]
DRAW = np.random.default_rng(5)
BATCHES = [{"x": DRAW.normal(size=(size, 8)).astype("f4"), "y": DRAW.integers(3, size=size)} for size in (16, 16, 5)]
IDS = {"ids": DRAW.integers(7, size=2000)}


def network() -> bw.Graph:
    h = bw.relu(bw.dense(bw.input("x", ("batch", 8)), 16, name="hidden"))
    h = bw.dropout(bw.batch_norm(h, name="norm"), 0.25)
    logits = bw.dense(h, 3, name="top")
    loss = bw.softmax_cross_entropy(logits, bw.input("y", ("batch",), dtype="int64"))
    return bw.graph(loss=loss, outputs={"logits": logits})


def meeting() -> bw.Value:
    """Thousands of gradients meet in each row of a table, several in each pixel: a GPU could add them in any order."""
    table = bw.parameter("table", DRAW.normal(size=(7, 4, 6, 6)).astype("f4"))
    image = bw.max_pool2d(table[bw.input("ids", ("batch",), dtype="int64")], 3, stride=1)
    return bw.mean(image * image)


def trained(session: bw.Session) -> list[float | None]:
    """Trains by separate calls and by fused ones, and returns all losses."""
    losses: list[float | None] = []
    for batch in BATCHES:
        found = session.forward(batch)
        found.backward()
        session.step()
        losses += [found.loss, session.train_step(batch).loss]
    return losses


def test_training_and_gradients_agree_with_numpy(server_address: str) -> None:
    with bw.connect(server_address) as client:
        sessions = [client.create_session(network(), bw.Adam(0.01), seed=3, executor=each) for each in ("numpy", "jax")]
        assert [each.info().executor for each in sessions] == ["numpy", "jax"]
        expected, found = map(trained, sessions)
        np.testing.assert_allclose(np.array(found, "f8"), np.array(expected, "f8"), rtol=1e-4)
        values, others = (each.parameters() for each in sessions)
        for name, value in values.items():
            np.testing.assert_allclose(others[name], value, rtol=1e-3, atol=1e-5)
        assert sessions[1].check_gradients(BATCHES[0]).worst_error < 1e-4


def test_branches_and_exports_compute_by_jax_too(server_address: str, tmp_path: Path) -> None:
    with bw.connect(server_address) as client:
        session = client.create_session(network(), bw.Adam(0.01), executor="jax")
        trained(session)
        session.save(tmp_path / "session")
        copies = [session.fork(), client.import_session(tmp_path / "session")]
        assert {each.info().executor for each in copies} == {"jax"}
        for each in (session, *copies):
            trained(each)
        assert len({each.digest() for each in (session, *copies)}) == 1


def test_sessions_are_made_again_to_the_bit_after_a_crash(start_server: Start, tmp_path: Path) -> None:
    flags = ("--data-dir", str(tmp_path), "--executor", "jax")
    server = start_server(*flags)
    with bw.connect(server.wait_until_ready()) as client:
        session = client.create_session(network(), bw.Adam(0.01), seed=7)
        loss = meeting()
        twins = [client.create_session(loss, bw.SGD(0.5)) for _ in range(2)]
        assert session.info().executor == "jax"
        trained(session)
        for twin in twins:
            for _ in range(3):
                twin.train_step(IDS)
        digest, name = session.digest(), session.id
        (digest_of_twins,) = {twin.digest() for twin in twins}
    server.signal(signal.SIGKILL)
    server.wait()
    server = start_server("--data-dir", str(tmp_path))
    with bw.connect(server.wait_until_ready()) as client:
        session = client.session(name)
        assert (session.digest(), session.info().executor) == (digest, "jax")
        trained(session)
        assert client.session(twins[0].id).digest() == digest_of_twins
    assert not any("bits may differ" in line for line in server.errors)


def test_gradients_that_are_not_finite_change_nothing(server_address: str) -> None:
    w = bw.parameter("w", np.ones(3, "f4"))
    loss = bw.sum(w * bw.input("x", (3,)))
    with bw.connect(server_address) as client:
        session = client.create_session(loss, bw.SGD(0.5), executor="jax")
        session.train_step({"x": np.ones(3, "f4")})
        digest = session.digest()
        with pytest.raises(bw.NonFiniteGradientError, match="'w'"):
            session.train_step({"x": np.array([1, np.inf, 1], "f4")})
        assert session.digest() == digest
        assert session.train_step({"x": np.ones(3, "f4")}).step == 2


def test_passes_are_measured_as_a_whole_and_leave_no_trace(server_address: str) -> None:
    with bw.connect(server_address) as client, client.create_session(network(), seed=3, executor="jax") as session:
        before = session.digest()
        found = session.describe(BATCHES[0], passes=2)
        assert found.forward_seconds > 0 < found.backward_seconds
        assert found.description is not None
        costs = found.description.nodes.values()
        assert sum(each.forward_flops for each in costs) == found.description.forward_flops
        assert {(each.forward_seconds, each.backward_seconds) for each in costs} == {(0, 0)}
        assert session.digest() == before
