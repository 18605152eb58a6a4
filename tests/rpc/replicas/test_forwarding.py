"""A call that comes to the wrong one of the servers over a directory is passed on to the right one, and only once."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import LONGER, TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X, cut_off, encrypting, started

from backwire._wire._owners import told_of
from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas import connections, reach
from backwire_server.rpc.replicas.passing import FORWARDED_KEY
from backwire_server.sessions.caller import Caller, Scope
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.training import trainer


def test_unary_calls_and_streams_of_all_kinds_are_passed_on(joined: tuple[Api, Api]) -> None:
    owner, other = joined
    session = owner.create()
    assert other.train(session).result.step == 1
    forward = other.forward(session)
    other.backward(session, forward.forward_id)
    assert set(other.gradients(session)) == {"w"}
    assert other.step(session).step == 2
    assert other.set_parameters(session, {"w": [1.0, 2.0, 3.0]}) == 2
    assert other.parameters(session)["w"].tolist() == [1.0, 2.0, 3.0]
    asked = [
        pb.PipelineRequest(id=number, train_step=pb.TrainStepRequest(session_id=session, inputs=X)) for number in (1, 2)
    ]
    assert [answer.train_step.result.step for answer in other.stub.Pipeline(iter(asked), timeout=TIMEOUT)] == [3, 4]
    assert owner.info(session).step == 4, "it stayed where it was"
    other.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session), timeout=TIMEOUT)
    assert owner.server.census[0] == 0


def test_calls_for_a_session_in_memory_alone_are_passed_on_or_its_owner_is_told(
    joined: tuple[Api, Api], refused: Any
) -> None:
    owner, other = joined
    session = owner.create(durability=pb.DURABILITY_MEMORY)
    assert [each.train(session).result.step for each in (owner, other)] == [1, 2]
    request = pb.TrainStepRequest(session_id=session, inputs=X)
    asked = iter([pb.PipelineRequest(id=1, train_step=request)])
    assert next(iter(other.stub.Pipeline(asked, timeout=TIMEOUT))).train_step.result.step == 3
    with pytest.raises(grpc.RpcError) as told:
        other.stub.TrainStep(request, timeout=TIMEOUT, metadata=((FOLLOWS_KEY, "1"),))
    assert told_of(told.value) == ("WRONG_REPLICA", {"owner": owner.server.address})
    gone = session.replace("~a", "~nobody")
    told_gone = refused(lambda: other.train(gone))
    assert told_gone.reason == "WRONG_REPLICA"
    assert "has ended where that replica has" in told_gone.message


@pytest.mark.parametrize("invented", ["s_1~a", "s_1~b", "~a", "d_zzz~a"])
def test_an_id_that_somebody_made_up_is_passed_on_once_at_most(
    joined: tuple[Api, Api], refused: Any, invented: str
) -> None:
    for api in joined:
        assert refused(partial(api.train, invented)).reason == "SESSION_NOT_FOUND"


@pytest.mark.parametrize("invented", ["s_1", "s_1~", "s_1~b", "s_1~..", "s_1~a/b", "s_1~\0", "s_1~a.acme", "s_1.x~a"])
def test_a_session_in_memory_is_nowhere_else_that_names_no_other_server_or_is_not_the_callers(
    joined: tuple[Api, Api], invented: str
) -> None:
    whose = Caller("somebody", scope=Scope.WRITE)
    assert joined[1].server._store.elsewhere("s_1~a", whose) == joined[0].server.address
    assert joined[1].server._store.elsewhere(invented, whose) == ""


def test_messages_larger_than_those_of_grpc_are_passed_on(joined: tuple[Api, Api], refused: Any) -> None:
    owner, other = joined
    session, names = owner.create(), ["n" * 100] * 50_000
    told = [refused(lambda api=api: api.backward(session, "f", wrt=names)) for api in (owner, other)]
    assert told[0].reason == told[1].reason == "PASS_NOT_FOUND"


def test_errors_come_with_what_was_told_of_them(joined: tuple[Api, Api], refused: Any) -> None:
    owner, other = joined
    session = owner.create()
    told = [
        refused(
            lambda api=api: api.stub.Backward(pb.BackwardRequest(session_id=session, forward_id="f"), timeout=TIMEOUT)
        )
        for api in (owner, other)
    ]
    assert told[0].reason == "PASS_NOT_FOUND"
    assert vars(told[0]) == vars(told[1])


def test_what_the_owner_tells_of_its_time_comes_with_the_answer(joined: tuple[Api, Api]) -> None:
    owner, other = joined
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    _, call = other.stub.TrainStep.with_call(request, timeout=TIMEOUT)
    assert "compute" in dict(call.trailing_metadata())["server-timing"]


@pytest.mark.parametrize("key", [FOLLOWS_KEY, FORWARDED_KEY])
def test_a_call_of_a_client_that_follows_or_that_was_passed_on_is_refused_with_the_address(
    joined: tuple[Api, Api], refused: Any, key: str
) -> None:
    owner, other = joined
    request = pb.StepRequest(session_id=owner.create())
    told = refused(lambda: other.stub.Step(request, timeout=TIMEOUT, metadata=((key, "c"),)))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "WRONG_REPLICA")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, until: Until) -> Held:
    found = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, found.train)
    return found


def test_a_client_that_goes_stops_the_computation(joined: tuple[Api, Api], held: Held) -> None:
    owner, other = joined
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    call = other.stub.TrainStep.future(request, timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()
    assert held.stopped.wait(TIMEOUT)


def test_a_client_whose_stream_ends_stops_the_computation(joined: tuple[Api, Api], held: Held) -> None:
    owner, other = joined
    request = pb.PipelineRequest(id=1, train_step=pb.TrainStepRequest(session_id=owner.create(), inputs=X))
    call = other.stub.Pipeline(iter([request]), timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()
    assert held.stopped.wait(TIMEOUT)


def test_a_deadline_stops_the_computation(joined: tuple[Api, Api], held: Held, refused: Any) -> None:
    owner, other = joined
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    for seconds in LONGER:
        told = refused(lambda seconds=seconds: other.stub.TrainStep(request, timeout=seconds))
        assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
        if held.begun.is_set():
            break
    assert held.stopped.wait(TIMEOUT)


def test_an_owner_that_is_gone_is_told_as_a_reason_to_call_again(joined: tuple[Api, Api], refused: Any) -> None:
    owner, other = joined
    session = owner.create()
    assert other.train(session).result.step == 1
    cut_off(owner.server)
    told = refused(lambda: other.train(session))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert told.retry_after is not None


def test_connections_to_servers_are_closed_that_no_call_uses_where_there_are_many(
    joined: tuple[Api, Api], tmp_path: Path, converse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST", 1)
    one, other = joined
    third = Api(started(tmp_path, "c"))
    sessions = one.create(), other.create()
    stream = converse(third)
    for step in (1, 2, 3):
        assert [third.train(each).result.step for each in sessions] == [2 * step - 1, step]
        stream.send(train_step=pb.TrainStepRequest(session_id=sessions[0], inputs=X))
        assert stream.answer().train_step.result.step == 2 * step, "a connection that is used stays"
    assert stream.answers() == []
    third.train(sessions[1])
    assert third.server._neighbours.forwarder is not None
    assert len(third.server._neighbours.forwarder._connections) == 1
    third.channel.close()
    third.server.stop(5.0)


def test_why_a_server_that_lives_is_not_reached_is_told_once_that_lasts(
    tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    access, credentials = encrypting(tmp_path)
    with ExitStack() as stack:
        owner, other = started(tmp_path / "data", "a", access, "localhost:0"), started(tmp_path / "data", "b")
        stack.callback(owner.stop, 5.0)
        stack.callback(other.stop, 5.0)
        session = Api(owner, stack.enter_context(grpc.secure_channel(owner.address, credentials))).create()
        api = Api(other, stack.enter_context(grpc.insecure_channel(other.address)))
        assert "tells why" not in refused(lambda: api.train(session)).message
        assert not [each for each in caplog.records if each.name == "backwire.rpc"], "it may have died"
        monkeypatch.setattr(reach, "LASTING_SECONDS", 0.0)
        told = refused(lambda: api.train(session))
        assert (told.reason, "tells why" in told.message) == ("NO_WORKER", True)
        (message,) = [each.getMessage() for each in caplog.records if each.name == "backwire.rpc"]
        assert message.startswith(f"calls cannot be passed on to the replica at {owner.address}: ")
        assert "have all of them encrypt or none" in message


def test_servers_that_encrypt_know_each_other_by_their_authority(tmp_path: Path) -> None:
    access, credentials = encrypting(tmp_path)
    with ExitStack() as stack:
        apis = []
        for name in "ab":
            server = started(tmp_path / "data", name, access, "localhost:0")
            stack.callback(server.stop, 5.0)
            channel = stack.enter_context(grpc.secure_channel(server.address, credentials))
            apis.append(Api(server, channel))
        owner, other = apis
        assert other.train(owner.create()).result.step == 1
