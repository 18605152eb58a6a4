"""Sessions whose products are of two bytes train as others do: their parameters stay float32."""

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import backwire as bw
from backwire._info import Executor, Precision

Array = NDArray[Any]
EXECUTORS: list[Executor] = ["numpy", "jax"] if find_spec("jax") else ["numpy"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
NARROW = PRECISIONS[1:]
UNIT = 2.0**-8
"""Half the spacing of the numbers of bfloat16 after 1."""


def images(count: int, seed: int) -> dict[str, Array]:
    """Returns pictures of 8 by 8 of bars at one of four angles, blurred by noise, and which it is."""
    draw = np.random.default_rng(seed)
    y = draw.integers(4, size=count)
    rows, columns = np.mgrid[:8, :8]
    waves = [rows, columns, rows + columns, rows - columns]
    clean = np.stack([np.sin(1.6 * waves[label] + draw.uniform(0, 6)) for label in y])
    return {"x": (clean + draw.normal(0, 0.7, clean.shape))[:, None].astype("f4"), "y": y}


def network() -> bw.Graph:
    h = bw.relu(bw.conv2d(bw.input("x", ("batch", 1, 8, 8)), 8, 3, padding=1, name="conv"))
    h = bw.batch_norm(bw.max_pool2d(h, 2), name="norm")
    logits = bw.dense(bw.relu(bw.dense(bw.flatten(h), 32, name="hidden")), 4, name="top")
    loss = bw.softmax_cross_entropy(logits, bw.input("y", ("batch",), dtype="int64"))
    return bw.graph(loss=loss, outputs={"logits": logits})


def train(session: bw.Session, steps: int) -> None:
    for number in range(steps):
        session.train_step(images(64, number))


def accuracy(session: bw.Session) -> float:
    test = images(1_000, 99_999)
    found = session.forward({"x": test["x"]}, mode="eval", outputs=["logits"])
    return float(np.mean(found.outputs["logits"].argmax(1) == test["y"]))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_network_learns_as_well_as_in_float32(server_address: str, executor: Executor) -> None:
    with bw.connect(server_address) as client:
        found = []
        for precision in PRECISIONS:
            session = client.create_session(network(), bw.Adam(0.01), executor=executor, precision=precision)
            train(session, 60)
            assert {each.dtype for each in session.parameters().values()} == {np.dtype("f4")}
            assert session.info().precision == precision
            found.append(accuracy(session))
    assert found[0] > 0.85
    assert max(abs(each - found[0]) for each in found) < 0.03


@pytest.mark.parametrize("executor", EXECUTORS)
def test_updates_too_small_for_bfloat16_add_up(server_address: str, executor: Executor) -> None:
    w = bw.parameter("w", np.ones((1, 1), "f4"))
    loss = bw.sum(bw.input("x", (1, 1)) @ w)
    small = UNIT / 16
    with bw.connect(server_address) as client:
        session = client.create_session(loss, bw.SGD(small), executor=executor, precision="bfloat16")
        for _ in range(64):
            result = session.train_step({"x": np.ones((1, 1), "f4")})
        assert session.parameters()["w"].item() == 1 - 64 * small
        assert result.loss == pytest.approx(1 - 63 * small, abs=UNIT)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_session_is_made_again_to_the_bit_after_a_crash(
    start_server: Callable[..., Any], tmp_path: Path, executor: Executor
) -> None:
    server = start_server("--data-dir", str(tmp_path))
    with bw.connect(server.wait_until_ready()) as client:
        session = client.create_session(network(), bw.Adam(0.01), seed=7, executor=executor, precision="bfloat16")
        train(session, 3)
        session.forward(images(5, 1)).backward()
        digest, name = session.digest(), session.id
    server.signal(signal.SIGKILL)
    server.wait()
    server = start_server("--data-dir", str(tmp_path))
    with bw.connect(server.wait_until_ready()) as client:
        session = client.session(name)
        assert (session.digest(), session.info().precision) == (digest, "bfloat16")


def test_an_overflow_is_told_and_what_it_did_to_the_scale_outlives_a_crash(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    w = bw.parameter("w", np.ones((1, 1), "f4"))
    loss, batch = bw.sum(bw.input("x", (1, 1)) @ w), {"x": np.ones((1, 1), "f4")}
    server = start_server("--data-dir", str(tmp_path))
    with bw.connect(server.wait_until_ready()) as client:
        session = client.create_session(loss, bw.SGD(0.25), precision="float16")
        told = [session.train_step(batch) for _ in range(2)]
        assert [(each.skipped, each.step, each.loss_scale) for each in told] == [(True, 0, 2**15), (False, 1, 2**15)]
        assert session.parameters()["w"].item() == 0.75
        digest, name = session.digest(), session.id
    server.signal(signal.SIGKILL)
    server.wait()
    server = start_server("--data-dir", str(tmp_path))
    with bw.connect(server.wait_until_ready()) as client:
        session = client.session(name)
        assert session.digest() == digest
        assert session.train_step(batch).loss_scale == 2**15


@pytest.mark.parametrize("precision", NARROW)
def test_branches_exports_and_checkpoints_go_on_to_the_bit(
    server_address: str, tmp_path: Path, precision: Precision
) -> None:
    with bw.connect(server_address) as client:
        session = client.create_session(network(), bw.Adam(0.01), precision=precision)
        train(session, 2)
        session.save(tmp_path / "session")
        copies = [session.fork(), client.import_session(tmp_path / "session")]
        for each in (session, *copies):
            assert each.info().precision == precision
            train(each, 2)
        assert len({each.digest() for each in (session, *copies)}) == 1


def test_batches_in_parts_have_the_precision_too(server_address: str) -> None:
    x, y = bw.input("x", ("batch", 64)), bw.input("y", ("batch",), dtype="int64")
    loss = bw.softmax_cross_entropy(bw.dense(bw.relu(bw.dense(x, 32, name="hidden")), 4, name="top"), y)
    batch = images(48, 1)
    batch["x"] = batch["x"].reshape(48, 64)
    with bw.connect(server_address) as client:
        found = []
        for parts in (1, 3):
            session = client.create_session(loss, bw.SGD(1.0), precision="bfloat16", data_parallel=parts)
            before = session.parameters()
            session.train_step(batch)
            found.append({name: before[name] - array for name, array in session.parameters().items()})
        for name, gradient in found[0].items():
            assert np.linalg.norm(found[1][name] - gradient) <= 8 * UNIT * np.linalg.norm(gradient)


def test_an_unknown_precision_is_named(server_address: str) -> None:
    with bw.connect(server_address) as client, pytest.raises(bw.InvalidRequestError, match="'int8'"):
        client.create_session(network(), precision="int8")  # type: ignore[arg-type]


def test_gradients_are_those_of_torch_autocast_within_rounding(server_address: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
    draw = np.random.default_rng(0)
    values = {
        "w1": draw.normal(size=(24, 40)) / 5,
        "w2": draw.normal(size=(40, 30)) / 6,
        "w3": draw.normal(size=(30, 5)),
    }
    values = {name: array.astype("f4") for name, array in values.items()}
    batch = {"x": draw.normal(size=(64, 24)).astype("f4"), "y": draw.integers(5, size=64)}
    w1, w2, w3 = (bw.parameter(name, array) for name, array in values.items())
    logits = bw.relu(bw.relu(bw.input("x", ("batch", 24)) @ w1) @ w2) @ w3
    loss = bw.softmax_cross_entropy(logits, bw.input("y", ("batch",), dtype="int64"))
    with bw.connect(server_address) as client, client.create_session(loss, precision="bfloat16") as session:
        done = session.forward(batch)
        done.backward()
        found = session.gradients()
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in values.items()}
    with torch.autocast("cpu", torch.bfloat16):
        hidden = torch.relu(torch.relu(torch.tensor(batch["x"]) @ theirs["w1"]) @ theirs["w2"])
        expected = torch.nn.functional.cross_entropy(hidden @ theirs["w3"], torch.tensor(batch["y"]))
    expected.backward()
    assert done.loss == pytest.approx(expected.item(), rel=2 * UNIT)
    for name, tensor in theirs.items():
        gradient = tensor.grad.numpy()
        assert np.linalg.norm(found[name] - gradient) <= 4 * UNIT * np.linalg.norm(gradient)


def test_a_server_has_a_precision_for_sessions_that_name_none(start_server: Callable[..., Any]) -> None:
    server = start_server("--precision", "bfloat16", "--workers", "2")
    with bw.connect(server.wait_until_ready()) as client:
        sessions = [client.create_session(network(), bw.Adam(0.01), precision=each) for each in (None, "float32", None)]
        for session in sessions:
            train(session, 1)
        assert [session.info().precision for session in sessions] == ["bfloat16", "float32", "bfloat16"]
        assert sessions[0].digest() == sessions[2].digest() != sessions[1].digest()
        assert sessions[0].fork().info().precision == "bfloat16"
