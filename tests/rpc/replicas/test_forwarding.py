"""A call that comes to the wrong one of the servers over a directory is passed on to the right one, and only once."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import LONGER, TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X, cut_off, encrypting, open_lane, started

from backwire_api import tensors
from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas import connections, reach
from backwire_server.rpc.replicas.passing import FORWARDED_KEY
from backwire_server.sessions import trainer
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.trainer import Trainer


@pytest.fixture(params=["by gRPC", "on lanes"])
def replicas(request: pytest.FixtureRequest, tmp_path: Path, until: Until) -> Iterator[tuple[Api, Api]]:
    """Clients, which follow nobody, of two servers over a directory: the second has a lane to the first, or none."""
    found = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    if request.param == "on lanes":
        open_lane(found[1], found[0], until)
    yield found
    for api in found:
        api.channel.close()
        api.server.stop(5.0)


def test_unary_calls_and_streams_of_all_kinds_are_passed_on(replicas: tuple[Api, Api]) -> None:
    owner, other = replicas
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


def test_messages_larger_than_those_of_grpc_are_passed_on(replicas: tuple[Api, Api], refused: Any) -> None:
    owner, other = replicas
    session, names = owner.create(), ["n" * 100] * 50_000
    told = [refused(lambda api=api: api.backward(session, "f", wrt=names)) for api in (owner, other)]
    assert told[0].reason == told[1].reason == "PASS_NOT_FOUND"


def test_errors_come_with_what_was_told_of_them(replicas: tuple[Api, Api], refused: Any) -> None:
    owner, other = replicas
    session = owner.create()
    told = [
        refused(
            lambda api=api: api.stub.Backward(pb.BackwardRequest(session_id=session, forward_id="f"), timeout=TIMEOUT)
        )
        for api in (owner, other)
    ]
    assert told[0].reason == "PASS_NOT_FOUND"
    assert vars(told[0]) == vars(told[1])


def test_what_the_owner_tells_of_its_time_comes_with_the_answer(replicas: tuple[Api, Api]) -> None:
    owner, other = replicas
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    _, call = other.stub.TrainStep.with_call(request, timeout=TIMEOUT)
    assert "compute" in dict(call.trailing_metadata())["server-timing"]


@pytest.mark.parametrize("key", [FOLLOWS_KEY, FORWARDED_KEY])
def test_a_call_of_a_client_that_follows_or_that_was_passed_on_is_refused_with_the_address(
    replicas: tuple[Api, Api], refused: Any, key: str
) -> None:
    owner, other = replicas
    request = pb.StepRequest(session_id=owner.create())
    told = refused(lambda: other.stub.Step(request, timeout=TIMEOUT, metadata=((key, "c"),)))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "WRONG_REPLICA")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, until: Until) -> Held:
    found = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, found.train)
    return found


def test_a_client_that_goes_stops_the_computation(replicas: tuple[Api, Api], held: Held) -> None:
    owner, other = replicas
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    call = other.stub.TrainStep.future(request, timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()
    assert held.stopped.wait(TIMEOUT)


def test_a_client_whose_stream_ends_stops_the_computation(replicas: tuple[Api, Api], held: Held) -> None:
    owner, other = replicas
    request = pb.PipelineRequest(id=1, train_step=pb.TrainStepRequest(session_id=owner.create(), inputs=X))
    call = other.stub.Pipeline(iter([request]), timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()
    assert held.stopped.wait(TIMEOUT)


def test_a_deadline_stops_the_computation(replicas: tuple[Api, Api], held: Held, refused: Any) -> None:
    owner, other = replicas
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    for seconds in LONGER:
        told = refused(lambda seconds=seconds: other.stub.TrainStep(request, timeout=seconds))
        assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
        if held.begun.is_set():
            break
    assert held.stopped.wait(TIMEOUT)


def test_an_owner_that_is_gone_is_told_as_a_reason_to_call_again(replicas: tuple[Api, Api], refused: Any) -> None:
    owner, other = replicas
    session = owner.create()
    assert other.train(session).result.step == 1
    cut_off(owner.server)
    told = refused(lambda: other.train(session))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert told.retry_after is not None


def test_the_chunks_on_a_pipeline_go_where_the_session_of_their_request_is(
    replicas: tuple[Api, Api], converse: Any
) -> None:
    owner, other = replicas
    session = owner.create()
    stream = converse(other)
    stream.chunks("x", np.asarray([1.0, -2.0, 4.0]))
    stream.send(train_step=pb.TrainStepRequest(session_id=session))
    assert stream.answer().train_step.result.step == 1


def train(number: int, session: str) -> pb.PipelineRequest:
    return pb.PipelineRequest(id=number, train_step=pb.TrainStepRequest(session_id=session, inputs=X))


def test_a_pipeline_has_sessions_of_several_servers_and_answers_in_the_order_of_its_requests(
    replicas: tuple[Api, Api],
) -> None:
    owner, other = replicas
    sessions = [owner.create(), other.create(), owner.create()]
    asked = [train(number, sessions[number % 5 % 3]) for number in range(1, 31)]
    for api in replicas:
        answers = list(api.stub.Pipeline(iter(asked), timeout=TIMEOUT))
        assert [answer.id for answer in answers] == [each.id for each in asked]
        assert {answer.WhichOneof("kind") for answer in answers} == {"train_step"}
    assert [owner.info(each).step for each in sessions] == [24, 24, 12]


def test_a_request_on_a_pipeline_waits_until_another_server_has_answered_those_before_it(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = replicas
    done = []

    def slow(owner: Trainer, call: TrainCall, ready: Callable[[], None], stop: CallStop) -> object:
        number = int(call.inputs["x"][0])
        time.sleep(0.2 / number)
        result = Trainer.train(owner, call, ready, stop)
        done.append(number)
        return result

    monkeypatch.setitem(trainer._COMPUTING, TrainCall, slow)
    asked = []
    for number, session in enumerate((owner.create(), other.create(), owner.create()), 1):
        asked.append(train(number, session))
        asked[-1].train_step.inputs["x"].CopyFrom(tensors.encode(np.asarray([number, 0.0, 0.0])))
    assert [answer.id for answer in other.stub.Pipeline(iter(asked), timeout=TIMEOUT)] == [1, 2, 3]
    assert done == [1, 2, 3]


def test_what_depends_on_a_failure_fails_though_requests_for_another_server_came_between(
    replicas: tuple[Api, Api], converse: Any, failure: Any
) -> None:
    owner, other = replicas
    first, second = owner.create(), other.create()
    stream = converse(other)
    stream.send(backward=pb.BackwardRequest(session_id=first, forward_id="none"))
    stream.send(train_step=pb.TrainStepRequest(session_id=second, inputs=X))
    stream.send(step=pb.StepRequest(session_id=first))
    assert failure(stream.answer()) == ("PASS_NOT_FOUND", 0)
    assert stream.answer().train_step.result.step == 1
    assert failure(stream.answer()) == ("DEPENDENCY_FAILED", 1)


def test_a_pipeline_ends_when_a_server_is_gone_that_has_one_of_its_sessions(
    replicas: tuple[Api, Api], refused: Any
) -> None:
    owner, other = replicas
    first, second = other.create(), owner.create()
    cut_off(owner.server)
    asked = [train(1, first), train(2, second), train(3, first)]
    answers: list[pb.PipelineResponse] = []
    told = refused(lambda: answers.extend(other.stub.Pipeline(iter(asked), timeout=TIMEOUT)))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert other.info(first).step == 1, "what follows is not done before it"


def test_a_pipeline_whose_sessions_are_elsewhere_ends_when_its_server_shuts_down(
    tmp_path: Path, converse: Any, refused: Any
) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    try:
        stream = converse(other)
        stream.send(train_step=pb.TrainStepRequest(session_id=owner.create(), inputs=X))
        assert stream.answer().train_step.result.step == 1
        assert other.server.stop(5.0), "it need not be broken off"
        told = refused(stream.answer)
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    finally:
        owner.server.stop(5.0)
        for api in (owner, other):
            api.channel.close()


def test_connections_to_servers_are_closed_that_no_call_uses_where_there_are_many(
    replicas: tuple[Api, Api], tmp_path: Path, converse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST", 1)
    one, other = replicas
    third = Api(started(tmp_path, "c"))
    sessions = one.create(), other.create()
    stream = converse(third)
    for step in (1, 2, 3):
        assert [third.train(each).result.step for each in sessions] == [2 * step - 1, step]
        stream.send(train_step=pb.TrainStepRequest(session_id=sessions[0], inputs=X))
        assert stream.answer().train_step.result.step == 2 * step, "a connection that is used stays"
    assert stream.answers() == []
    third.train(sessions[1])
    assert third.server._forwarder is not None
    assert len(third.server._forwarder._connections) == 1
    third.channel.close()
    third.server.stop(5.0)


def test_a_pipeline_without_a_request_ends(replicas: tuple[Api, Api]) -> None:
    assert list(replicas[1].stub.Pipeline(iter([]), timeout=TIMEOUT)) == []


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
