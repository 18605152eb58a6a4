"""A call that nobody waits for stops while it computes, whether its client went or its time is up."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import LONGER, TIMEOUT

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.engine.stopping import Stopped
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.training import trainer
from backwire_server.sessions.training.trainer import Trainer

X = {"x": tensors.encode(np.asarray([1.0, -2.0, 4.0]))}


class Held:
    """Holds the first TrainStep, when it is about to compute, until its computation is to stop."""

    def __init__(self, until: Callable[[Callable[[], Any]], None]) -> None:
        self.begun = threading.Event()
        self.stopped = threading.Event()
        self._until = until

    def train(self, owner: Trainer, call: TrainCall, ready: Callable[[], None], stop: CallStop) -> object:
        if self.begun.is_set():
            return Trainer.train(owner, call, ready, stop)
        self.begun.set()
        self._until(lambda: stop.wanted)
        try:
            return Trainer.train(owner, call, ready, stop)
        except Stopped:
            self.stopped.set()
            raise


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], Any]], None]) -> Held:
    found = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, found.train)
    return found


def cancel_unary(api: Any, request: pb.TrainStepRequest, held: Held) -> None:
    call = api.stub.TrainStep.future(request, timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()


def let_time_pass(api: Any, request: pb.TrainStepRequest, held: Held) -> None:
    for seconds in LONGER:
        with pytest.raises(grpc.RpcError) as caught:
            api.stub.TrainStep(request, timeout=seconds)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if held.begun.is_set():
            break


def cancel_pipeline(api: Any, request: pb.TrainStepRequest, held: Held) -> None:
    def requests() -> Iterator[pb.PipelineRequest]:
        yield pb.PipelineRequest(id=1, train_step=request)
        held.stopped.wait(TIMEOUT)

    call = api.stub.Pipeline(requests(), timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()


@pytest.mark.parametrize("leave", [cancel_unary, let_time_pass, cancel_pipeline])
def test_it_stops_before_the_next_kernel_and_the_session_is_as_before(
    api: Any, held: Held, leave: Callable[[Any, pb.TrainStepRequest, Held], None]
) -> None:
    session = api.create()
    before = api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True), timeout=TIMEOUT)
    leave(api, pb.TrainStepRequest(session_id=session, inputs=X, request_id="once"), held)
    assert held.stopped.wait(TIMEOUT)
    after = api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True), timeout=TIMEOUT)
    assert (after.digest, after.session.step) == (before.digest, 0)
    assert api.train(session, request_id="once").result.step == 1
