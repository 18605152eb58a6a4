"""Calls that wait for their turn while their session moves are done where it is then."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X

from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Access
from backwire_server.rpc.replicas.forwarding import MOST_ROUTES, Forwarder
from backwire_server.sessions.caller import ANYONE
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.errors import WrongReplica
from backwire_server.sessions.training import trainer


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


@pytest.mark.parametrize("number", [0, 1], ids=["here", "passed on"])
@pytest.mark.parametrize("method", ["GetParameters", "ExportSession"])
def test_a_transfer_that_waits_is_answered_by_the_new_owner(
    moving: tuple[Api, Api, str, Any], method: str, number: int
) -> None:
    *apis, session, go_on = moving
    request = getattr(pb, f"{method}Request")(session_id=session)
    call = getattr(apis[number].stub, method)(request, timeout=TIMEOUT)
    go_on(1)
    assert len(list(call)) > 0


@pytest.mark.parametrize(
    ("method", "undone", "times"),
    [
        ("TrainStep", True, MOST_ROUTES),
        ("TrainStep", False, 1),
        ("GetParameters", True, MOST_ROUTES),
        ("SetParameters", True, 1),
    ],
)
def test_a_call_is_done_again_so_often_at_most_and_only_where_nothing_was_done_for_all_of_it(
    method: str, undone: bool, times: int
) -> None:
    given: list[int] = []
    context = SimpleNamespace(invocation_metadata=tuple)
    call: Any = SimpleNamespace(method=method, scope=SimpleNamespace(context=context, caller=ANYONE))
    ticket: Any = SimpleNamespace(give=given.append)
    message = pb.TrainStepRequest(session_id="s").SerializeToString()
    read: list[list[bytes]] = []

    def answered(requests: Iterator[bytes]) -> Iterator[bytes]:
        read.append(list(requests))
        raise WrongReplica("it moves", undone=undone)

    forwarder = Forwarder("a", lambda _, __: "", lambda _: True, Access())
    with pytest.raises(WrongReplica):
        list(forwarder.follow(call, ticket, iter([message]), answered))
    forwarder.close()
    assert read == [[message]] * times
    assert given == [len(message)] * (times - 1), "what is read again counts once"


def test_a_transfer_whose_answer_began_is_not_begun_anew() -> None:
    context = SimpleNamespace(invocation_metadata=tuple)
    call: Any = SimpleNamespace(method="GetParameters", scope=SimpleNamespace(context=context, caller=ANYONE))

    def answered(_: Iterator[bytes]) -> Iterator[bytes]:
        yield b"begun"
        raise WrongReplica("it moves", undone=True)

    forwarder = Forwarder("a", lambda _, __: "", lambda _: True, Access())
    answers = forwarder.follow(call, SimpleNamespace(), iter([b""]), answered)  # type: ignore[arg-type]
    assert next(answers) == b"begun"
    with pytest.raises(WrongReplica):
        next(answers)
    forwarder.close()
