"""Calls that wait for their turn while their session moves are done where it is then."""

from typing import Any

import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X

from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.sessions import trainer
from backwire_server.sessions.calls import TrainCall


@pytest.fixture
def moving(joined: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch, until: Until) -> tuple[Api, Api, str, Any]:
    """Clients of the owner of a session and of another, and the session, which moves once the first step is done."""
    owner, other = joined
    session = owner.create()
    turns = owner.server.store.look(session)._turn
    with monkeypatch.context() as changed:
        held = Held(until)
        changed.setitem(trainer._COMPUTING, TrainCall, held.train)
        first = owner.stub.TrainStep.future(pb.TrainStepRequest(session_id=session, inputs=X), timeout=TIMEOUT)
        assert held.begun.wait(TIMEOUT)
    move = owner.stub.MoveSession.future(pb.MoveSessionRequest(session_id=session, replica="b"), timeout=TIMEOUT)
    until(lambda: len(turns._waiting) == 1)

    def go_on(waiting: int) -> None:
        until(lambda: len(turns._waiting) == 1 + waiting)
        held.stopped.set()
        first.result()
        assert move.result().address == other.server.address

    return owner, other, session, go_on


def test_calls_that_wait_here_and_that_were_passed_on_are_done_by_the_new_owner(
    moving: tuple[Api, Api, str, Any],
) -> None:
    owner, other, session, go_on = moving
    request = pb.TrainStepRequest(session_id=session, inputs=X)
    calls = [api.stub.TrainStep.future(request, timeout=TIMEOUT) for api in (owner, other)]
    go_on(len(calls))
    assert sorted(call.result().result.step for call in calls) == [2, 3]
    assert not owner.server.store.look(session).awake


def test_a_client_that_goes_to_owners_is_told_the_new_one(moving: tuple[Api, Api, str, Any], refused: Any) -> None:
    owner, other, session, go_on = moving
    request = pb.TrainStepRequest(session_id=session, inputs=X)
    call = owner.stub.TrainStep.future(request, timeout=TIMEOUT, metadata=((FOLLOWS_KEY, "1"),))
    go_on(1)
    assert refused(call.result).reason == "WRONG_REPLICA"
    assert other.info(session).step == 1
