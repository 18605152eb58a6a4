"""Pipelines against a server that misbehaves: what is repeated, what is not, and what a future tells."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

import backwire as bw
from backwire._wire._transport import Transport
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.v1 import tensor_pb2

X = {"x": np.ones((1, 2), np.float32)}
MISPLACED = tensor_pb2.TensorChunk(name="y", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[3], data=b"1234", offset=4)
Stream = Callable[[Any, Any], Iterator[Any]]


def told(number: int, code: grpc.StatusCode, reason: str, **metadata: str) -> service_pb2.PipelineResponse:
    """The answer to a request that failed."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="backwire", metadata=metadata)
    error = service_pb2.PipelineError(code=code.value[0], message="refused; do otherwise")
    error.details.add().Pack(info)
    return service_pb2.PipelineResponse(id=number, error=error)


@pytest.fixture
def breaks(service: Any, refuse: Any) -> Callable[..., Stream]:
    """A stream that answers some requests, does one more, and then breaks before that is answered.

    It does nothing before all is `sent`: a pipeline that has failed takes nothing more.
    """

    def make(answers: int, sent: threading.Event | None = None) -> Stream:
        def stream(requests: Any, context: Any) -> Iterator[Any]:
            assert sent is None or sent.wait(20)
            for request in islice(requests, answers):
                yield service.answered(request, context)
            service.answered(next(requests), context)
            refuse(grpc.StatusCode.UNAVAILABLE)(context)

        return stream

    return make


def test_a_broken_stream_is_replaced_and_repeats_what_was_not_answered(
    session: bw.Session, service: Any, breaks: Any
) -> None:
    service.streams += [breaks(2), breaks(0), breaks(1)]
    with session.pipeline() as pipe:
        futures = [pipe.train_step(X) for _ in range(5)]
    assert [future.result().step for future in futures] == [1, 2, 3, 4, 5]
    sent = [request.request_id for request in service.requests["TrainStep"]]
    assert list(dict.fromkeys(sent)) == [future.request_id for future in futures]
    assert len(sent) > 5
    assert service.sessions[session.id].step == 5


def test_whoever_waits_is_told_where_the_pipeline_itself_fails(
    session: bw.Session, service: Any, breaks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("a mistake")

    sent = threading.Event()
    monkeypatch.setattr(Transport, "pause", fails)
    service.streams += [breaks(1, sent)]
    with session.pipeline() as pipe:
        futures = [pipe.train_step(X) for _ in range(3)]
        sent.set()
        assert futures[0].result(timeout=10).step == 1
        for future in futures[1:]:
            with pytest.raises(bw.ServerError, match="a mistake"):
                future.result(timeout=10)


def test_attempts_run_out_only_without_progress(session: bw.Session, service: Any, breaks: Any) -> None:
    service.streams += [breaks(1) for _ in range(8)]
    with session.pipeline() as pipe:
        futures = [pipe.train_step(X) for _ in range(8)]
    assert [future.result().step for future in futures] == list(range(1, 9))


def test_when_attempts_run_out_every_future_tells_its_request_id(
    session: bw.Session, service: Any, breaks: Any
) -> None:
    sent = threading.Event()
    service.streams += [breaks(0, sent) for _ in range(4)]
    pipe = session.pipeline()
    futures = [pipe.train_step(X) for _ in range(3)]
    sent.set()
    for future in futures:
        with pytest.raises(bw.UnavailableError, match=str(future.request_id)) as caught:
            future.result()
        assert caught.value.request_id == future.request_id
    with pytest.raises(bw.UnavailableError):
        pipe.step()
    pipe.close()


def test_a_request_without_an_id_is_not_repeated(session: bw.Session, service: Any, breaks: Any) -> None:
    service.streams.append(breaks(0))
    pipe = session.pipeline()
    with pytest.raises(bw.UnavailableError):
        pipe.train_step(X, request_id="").result()
    assert len(service.requests["TrainStep"]) == 1


def test_what_depends_on_a_failure_is_not_repeated_on_a_stream_that_does_not_know_of_it(
    session: bw.Session, service: Any, refuse: Any
) -> None:
    def stream(requests: Any, context: Any) -> Iterator[Any]:
        yield told(next(requests).id, grpc.StatusCode.INVALID_ARGUMENT, "MISSING_INPUT")
        next(requests)
        refuse(grpc.StatusCode.UNAVAILABLE)(context)

    service.streams.append(stream)
    pipe = session.pipeline()
    bad, step = pipe.forward(X), pipe.step()
    with pytest.raises(bw.MissingInputError):
        bad.result()
    with pytest.raises(bw.UnavailableError):
        step.result()
    assert not service.requests["Step"]


def test_an_overloaded_server_is_asked_again_where_order_is_safe(session: bw.Session, service: Any) -> None:
    def stream(requests: Any, context: Any) -> Iterator[Any]:
        yield service.answered(next(requests), context)
        first = next(requests).id
        yield told(first, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        for request in requests:
            yield told(request.id, grpc.StatusCode.FAILED_PRECONDITION, "DEPENDENCY_FAILED", failed_id=str(first))

    service.streams.append(stream)
    assert [result.step for result in session.train_steps([X] * 4, depth=3)] == [1, 2, 3, 4]


def test_an_idle_stream_that_ended_is_opened_again(session: bw.Session, service: Any) -> None:
    def stream(requests: Any, context: Any) -> Iterator[Any]:
        yield service.answered(next(requests), context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")

    service.streams.append(stream)
    with session.pipeline() as pipe:
        assert pipe.train_step(X).result().step == 1
        time.sleep(0.05)
        assert pipe.train_step(X).result().step == 2


def test_a_silent_server_is_waited_for_as_long_as_was_said(session: bw.Session, service: Any) -> None:
    release = threading.Event()

    def stream(requests: Any, context: Any) -> Iterator[Any]:  # noqa: ARG001
        release.wait(20)
        yield from ()

    service.streams.append(stream)
    pipe = session.pipeline(depth=1, timeout=0.2)
    future = pipe.train_step(X)
    assert not future.done()
    assert not future.cancel()
    for wait in (lambda: future.result(0.01), future.result, future.exception, lambda: pipe.train_step(X), pipe.drain):
        with pytest.raises(bw.DeadlineExceededError):
            wait()
    release.set()
    assert future.result(10).step == 1
    pipe.close()


def test_an_answer_that_came_while_the_process_stood_still_is_waited_for_once_more(
    session: bw.Session, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stream(requests: Any, context: Any) -> Iterator[Any]:  # noqa: ARG001
        release.wait(20)
        yield from ()

    def again_and_again(_: float) -> Iterator[None]:
        for _ in range(200):
            yield
            release.set()

    service.streams.append(stream)
    with session.pipeline(depth=1, timeout=0.1) as pipe:
        future = pipe.train_step(X)
        monkeypatch.setattr("backwire._wire._pipeline_stream.waits", again_and_again)
        assert pipe.train_step(X).result().step == 2
        assert future.result().step == 1


@pytest.mark.parametrize(
    "answer",
    [
        service_pb2.PipelineResponse(id=7, step=service_pb2.StepResponse()),
        service_pb2.PipelineResponse(id=1),
        service_pb2.PipelineResponse(id=1, chunk=MISPLACED),
    ],
    ids=["out of turn", "empty", "a chunk in the wrong place"],
)
def test_answers_without_sense_are_the_servers_fault(session: bw.Session, service: Any, answer: Any) -> None:
    def stream(requests: Any, context: Any) -> Iterator[Any]:  # noqa: ARG001
        next(requests)
        yield answer

    service.streams.append(stream)
    with pytest.raises(bw.ServerError):
        session.pipeline().step().result()


def test_an_older_server_has_no_pipelines(session: bw.Session, service: Any) -> None:
    def stream(requests: Any, context: Any) -> Iterator[Any]:  # noqa: ARG001
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield

    service.streams.append(stream)
    with pytest.raises(bw.UnsupportedCallError):
        session.pipeline().step().result()


def test_mistakes_are_told_before_anything_is_sent(session: bw.Session, service: Any) -> None:
    with pytest.raises(bw.InvalidRequestError, match="depth"):
        session.pipeline(depth=0)
    with session.pipeline() as pipe:
        for wrong in (
            lambda: pipe.train_step({"nope": 1}),
            lambda: pipe.step(depends="later"),  # type: ignore[arg-type]
            lambda: pipe.backward(pipe.forward(X, mode="eval")),
        ):
            with pytest.raises(bw.BackwireError):
                wrong()
    assert not service.requests["TrainStep"]
    with pytest.raises(bw.UnavailableError, match="closed"):
        pipe.step()
