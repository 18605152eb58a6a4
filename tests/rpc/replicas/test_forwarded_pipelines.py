"""A pipeline has requests for sessions of several servers over a directory, and answers them in order."""

import _thread
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import X, cut_off, started

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.training import trainer
from backwire_server.sessions.training.trainer import Trainer

OF_STREAMS = "Thread-"
"""How the names of threads begin that gRPC starts for streams."""


def test_the_chunks_on_a_pipeline_go_where_the_session_of_their_request_is(
    joined: tuple[Api, Api], converse: Any
) -> None:
    owner, other = joined
    session = owner.create()
    stream = converse(other)
    stream.chunks("x", np.asarray([1.0, -2.0, 4.0]))
    stream.send(train_step=pb.TrainStepRequest(session_id=session))
    assert stream.answer().train_step.result.step == 1


def train(number: int, session: str) -> pb.PipelineRequest:
    return pb.PipelineRequest(id=number, train_step=pb.TrainStepRequest(session_id=session, inputs=X))


def test_a_pipeline_has_sessions_of_several_servers_and_answers_in_the_order_of_its_requests(
    joined: tuple[Api, Api],
) -> None:
    owner, other = joined
    sessions = [owner.create(), other.create(), owner.create()]
    asked = [train(number, sessions[number % 5 % 3]) for number in range(1, 31)]
    for api in joined:
        answers = list(api.stub.Pipeline(iter(asked), timeout=TIMEOUT))
        assert [answer.id for answer in answers] == [each.id for each in asked]
        assert {answer.WhichOneof("kind") for answer in answers} == {"train_step"}
    assert [owner.info(each).step for each in sessions] == [24, 24, 12]


def test_a_request_on_a_pipeline_waits_until_another_server_has_answered_those_before_it(
    joined: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = joined
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
    joined: tuple[Api, Api], converse: Any, failure: Any
) -> None:
    owner, other = joined
    first, second = owner.create(), other.create()
    stream = converse(other)
    stream.send(backward=pb.BackwardRequest(session_id=first, forward_id="none"))
    stream.send(train_step=pb.TrainStepRequest(session_id=second, inputs=X))
    stream.send(step=pb.StepRequest(session_id=first))
    assert failure(stream.answer()) == ("PASS_NOT_FOUND", 0)
    assert stream.answer().train_step.result.step == 1
    assert failure(stream.answer()) == ("DEPENDENCY_FAILED", 1)


def test_a_pipeline_ends_when_a_server_is_gone_that_has_one_of_its_sessions(
    joined: tuple[Api, Api], refused: Any
) -> None:
    owner, other = joined
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


def test_a_pipeline_without_a_request_ends(joined: tuple[Api, Api]) -> None:
    assert list(joined[1].stub.Pipeline(iter([]), timeout=TIMEOUT)) == []


def test_a_pipeline_is_refused_that_no_thread_can_be_started_for_and_those_after_it_are_answered(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    owner, other = replicas
    session = owner.create()
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if threading.current_thread() is not threading.main_thread() and thread.name.startswith(OF_STREAMS):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        patch.setattr(_thread, "start_new_thread", lambda *_: fails(threading.Thread()))
        told = refused(lambda: list(other.stub.Pipeline(iter([train(1, session)]), timeout=TIMEOUT)))
    assert told.reason == "OVERLOADED"
    (answer,) = other.stub.Pipeline(iter([train(2, session)]), timeout=TIMEOUT)
    assert answer.train_step.result.step == 1
