"""The batches of a Pipeline go to the device while an earlier step computes, and mean what they mean otherwise."""

import threading
from typing import Any

import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb

pytest.importorskip("jax")

from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.training import device_trainer
from backwire_server.sessions.training.device_trainer import DeviceTrainer
from backwire_server.xla.model import XlaModel


def train(session: str, *x: float) -> pb.TrainStepRequest:
    return pb.TrainStepRequest(session_id=session, inputs={"x": tensors.encode(np.array(x))})


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What steps wait for before they compute."""
    opened, compute = threading.Event(), DeviceTrainer.train

    def train(self: DeviceTrainer, call: TrainCall, *given: Any) -> Any:
        assert opened.wait(60)
        return compute(self, call, *given)

    monkeypatch.setattr(DeviceTrainer, "train", train)
    return opened


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[TrainCall]:
    """The calls that may be staged, which all may that have at least 3 elements."""
    monkeypatch.setattr(device_trainer, "STAGED_BYTES", 3 * 8)
    calls: list[TrainCall] = []
    stage = DeviceTrainer.stage

    def note(self: DeviceTrainer, call: TrainCall) -> None:
        stage(self, call)
        calls.append(call)

    monkeypatch.setattr(DeviceTrainer, "stage", note)
    return calls


def test_batches_are_sent_while_a_step_computes(
    api: Any, converse: Any, until: Any, gate: threading.Event, staged: list[TrainCall]
) -> None:
    one, other = (api.create(executor=pb.EXECUTOR_JAX) for _ in range(2))
    batches, stream = [(1.0, -2.0, 4.0), (2.0, 0.5, 1.0), (0.0, 3.0, -1.0)], converse(api)
    for each in batches:
        stream.send(train_step=train(one, *each))
    until(lambda: len(staged) == 3)
    sent = [np.asarray(call.staged["x"]) for call in staged]
    gate.set()
    losses = [answer.train_step.loss for answer in stream.answers()]
    np.testing.assert_array_equal(sent, batches)
    assert losses == [api.train(other, each).loss for each in batches]
    assert api.parameters(one)["w"].tobytes() == api.parameters(other)["w"].tobytes()


def test_what_is_wrong_with_a_batch_is_told_in_its_turn(
    api: Any, converse: Any, failure: Any, gate: threading.Event, staged: list[TrainCall]
) -> None:
    gate.set()
    session, stream = api.create(executor=pb.EXECUTOR_JAX), converse(api)
    stream.send(train_step=train(session, 1.0, 2.0, 3.0, 4.0))
    stream.send(train_step=train("nobody", 1.0, 2.0, 3.0), dependency=pb.DEPENDENCY_NONE)
    stream.send(train_step=train(session, 1.0, 2.0, 3.0), dependency=pb.DEPENDENCY_NONE)
    wrong, absent, right = stream.answers()
    assert (failure(wrong)[0], failure(absent)[0]) == ("SHAPE_MISMATCH", "SESSION_NOT_FOUND")
    assert right.train_step.result.step == 1
    assert [sorted(call.staged) for call in staged] == [[], ["x"]]


def test_small_batches_are_given_with_their_step(
    api: Any, converse: Any, staged: list[TrainCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_trainer, "STAGED_BYTES", 3 * 8 + 1)
    session, stream = api.create(executor=pb.EXECUTOR_JAX), converse(api)
    stream.send(train_step=train(session, 1.0, 2.0, 3.0))
    assert [answer.train_step.result.step for answer in stream.answers()] == [1]
    assert [call.staged for call in staged] == [{}]


def test_batches_of_numpy_stay_where_they_are(api: Any, converse: Any, staged: list[TrainCall]) -> None:
    session, stream = api.create(), converse(api)
    stream.send(train_step=train(session, 1.0, 2.0, 3.0))
    assert [answer.train_step.result.step for answer in stream.answers()] == [1]
    assert staged == []


def test_a_device_without_memory_for_a_batch_to_come_is_asked_again_in_its_turn(
    api: Any, converse: Any, staged: list[TrainCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(*_: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 24 bytes")

    monkeypatch.setattr(XlaModel, "stage", stage)
    session, stream = api.create(executor=pb.EXECUTOR_JAX), converse(api)
    for _ in range(2):
        stream.send(train_step=train(session, 1.0, 2.0, 3.0))
    assert [answer.train_step.result.step for answer in stream.answers()] == [1, 2]
    assert staged == [], "none was sent ahead"
