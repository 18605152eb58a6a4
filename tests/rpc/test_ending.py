"""A call that ends before its turn has come leaves no trace but a line in the log."""

import logging
import time
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import LONGER

from backwire_api import tensors
from backwire_api.reasons import Reason
from backwire_api.v1 import gradient_service_pb2 as pb


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.DEADLINE_EXCEEDED])
def test_a_call_that_ends_while_it_waits_for_its_turn_has_no_effect(
    api: Any, reason: Reason, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    caplog.set_level(logging.INFO, "backwire.access")
    session = api.create()
    turn = api.server._store.get(session)._turn
    assert turn.try_acquire()
    inputs = {"x": tensors.encode(np.ones(3))}
    for seconds in LONGER if reason is Reason.DEADLINE_EXCEEDED else [None]:
        call = api.stub.TrainStep.future(pb.TrainStepRequest(session_id=session, inputs=inputs), timeout=seconds)
        until(lambda call=call: turn._waiting or call.done())
        if not call.done():
            break
    if reason is Reason.CANCELLED:
        call.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError, futures.CancelledError)):
        call.result()
    until(lambda: not turn._waiting)
    turn.release()

    def told() -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = [getattr(record, "data", {}) for record in caplog.records]
        return [call for call in calls if call.get("method") == "TrainStep"]

    until(told)
    assert {call["reason"] for call in told()} == {reason}
    assert api.info(session).step == 0


def test_a_call_goes_on_while_the_clock_is_set_forward_beyond_its_deadline(
    api: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = api.create()
    turn = api.server._store.get(session)._turn
    assert turn.try_acquire()
    inputs = {"x": tensors.encode(np.ones(3))}
    call = api.stub.TrainStep.future(pb.TrainStepRequest(session_id=session, inputs=inputs), timeout=600.0)
    until(lambda: turn._waiting or call.done())
    actual = time.time
    with monkeypatch.context() as changed:
        changed.setattr(time, "time", lambda: actual() + 3_600.0)
        turn.release()
        assert call.result(60).result.step == 1
