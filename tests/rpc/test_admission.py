"""A server takes on so much and no more, says when to come back, and answers health all the while."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.admission import CALLS, STREAMS

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(api: Any, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(api.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


def test_calls_beyond_the_limit_are_refused_and_health_answers(serve: Any, refused: Any, until: Any) -> None:
    api = serve(max_concurrent_calls=2)
    session = api.create()
    turn = api.server._store.get(session)._turn
    assert turn.try_acquire()
    request = pb.TrainStepRequest(session_id=session, inputs={"x": tensors.encode(np.ones(3))})
    waiting = [api.stub.TrainStep.future(request) for _ in range(2)]
    until(lambda: len(turn._waiting) == 2)
    for _ in range(20):
        told = refused(lambda: api.step(session))
        assert (told.reason, told.quota) == ("OVERLOADED", "max_concurrent_calls")
        assert told.retry_after > 0
        assert health(api) == SERVING
        assert api.info(session).step == 0, "what computes nothing has places of its own"
    turn.release()
    assert sorted(call.result(10).result.step for call in waiting) == [1, 2]
    assert api.info(session).step == 2


def test_calls_that_send_nothing_take_places_but_not_the_server(serve: Any, refused: Any, until: Any) -> None:
    api = serve(max_concurrent_calls=4)
    session = api.create()
    release = threading.Event()

    def nothing() -> Iterator[bytes]:
        release.wait(20)
        yield from ()

    half_open = api.channel.stream_unary("/backwire_api.v1.GradientService/Step")
    calls = [half_open.future(nothing()) for _ in range(4)]
    until(lambda: api.server.admission._in_progress[CALLS] == 4)
    assert refused(lambda: api.step(session)).reason == "OVERLOADED"
    assert health(api) == SERVING
    assert list(api.parameters(session)) == ["w", "c"], "streams have places of their own"
    for call in calls[:2]:
        call.cancel()
    until(lambda: api.server.admission._in_progress[CALLS] == 2)
    assert api.train(session).result.step == 1
    release.set()
    for call in calls[2:]:
        assert refused(call.result).reason == "INVALID_ARGUMENT"


def test_requests_that_hold_too_many_bytes_are_refused(serve: Any, refused: Any, until: Any) -> None:
    api = serve(max_request_bytes=100_000, max_message_bytes=100_000)
    session = api.create()
    turn = api.server._store.get(session)._turn
    assert turn.try_acquire()
    large = {"x": tensors.encode(np.ones(9_000))}
    waiting = api.stub.Forward.future(pb.ForwardRequest(session_id=session, inputs=large))
    until(lambda: turn._waiting)
    told = refused(lambda: api.forward(session, np.ones(9_000)))
    assert (told.reason, told.quota) == ("OVERLOADED", "max_request_bytes")
    assert api.info(session).step == 0
    turn.release()
    assert refused(waiting.result).reason == "SHAPE_MISMATCH"
    assert api.server.admission._request_bytes == 0


def test_a_slow_upload_and_a_slow_download_leave_the_server_alone(
    serve: Any, until: Any, set_parameters_requests: Any
) -> None:
    api = serve(max_concurrent_streams=2)
    session = api.create()
    release = threading.Event()

    def upload() -> Iterator[pb.SetParametersRequest]:
        requests = set_parameters_requests(session, {"w": np.zeros(3)})
        yield next(requests)
        release.wait(20)
        yield from requests

    slow = api.stub.SetParameters.future(upload())
    until(lambda: api.server.admission._in_progress[STREAMS] == 1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: api.train(session), range(20)))
    release.set()
    assert slow.result(10).step == 20
    np.testing.assert_array_equal(api.parameters(session)["w"], np.zeros(3))


def test_concurrent_clients_lose_no_contribution(serve: Any) -> None:
    api = serve(max_passes=1_000)
    session = api.create()

    def work(number: int) -> None:
        for _ in range(10):
            api.backward(session, api.forward(session, np.full(3, float(number))).forward_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1, 9)))
    np.testing.assert_array_equal(api.gradients(session)["w"], np.full(3, 360.0))
    assert api.step(session).contributions == 80


def test_health_knows_the_server_and_the_service(api: Any, refused: Any) -> None:
    assert health(api) == health(api, "backwire_api.v1.GradientService") == SERVING
    assert refused(lambda: health(api, "nope")).code is grpc.StatusCode.NOT_FOUND


def test_a_server_that_stops_lets_calls_finish_and_says_so(serve: Any, refused: Any, until: Any) -> None:
    api = serve()
    session = api.create()
    turn = api.server._store.get(session)._turn
    assert turn.try_acquire()
    request = pb.TrainStepRequest(session_id=session, inputs={"x": tensors.encode(np.ones(3))})
    running = api.stub.TrainStep.future(request)
    until(lambda: turn._waiting)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(api.server.stop, 20.0)
        until(lambda: api.server.admission._draining)
        assert health(api) == health(api, "backwire_api.v1.GradientService") == NOT_SERVING
        told = refused(lambda: api.info(session))
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert told.retry_after > 0
        turn.release()
        assert running.result(10).result.step == 1
        assert stopping.result(10) is True


def test_a_server_that_stops_does_not_wait_for_ever(serve: Any, until: Any) -> None:
    api = serve()
    session = api.create()
    turn = api.server._store.get(session)._turn
    assert turn.try_acquire()
    request = pb.TrainStepRequest(session_id=session, inputs={"x": tensors.encode(np.ones(3))})
    running = api.stub.TrainStep.future(request)
    until(lambda: turn._waiting)
    assert api.server.stop(0.05) is False
    with pytest.raises(grpc.RpcError):
        running.result(10)
    until(lambda: not turn._waiting)
    turn.release()
    assert api.server._store.get(session).info().step == 0
