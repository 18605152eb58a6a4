"""Calls that are given up in any phase leave nothing behind: no place, no byte, and no change to half of a session."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import TIMEOUT, Api, set_requests

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.admission import QUOTAS

X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}
CALLS = 150
LONGEST = 0.004
"""The seconds after which a call is cancelled at the latest: about what it takes."""


def forward(api: Api, session: str) -> Any:
    return api.stub.Forward.future(pb.ForwardRequest(session_id=session, inputs=X), timeout=TIMEOUT)


def train(api: Api, session: str) -> Any:
    return api.stub.TrainStep.future(pb.TrainStepRequest(session_id=session, inputs=X), timeout=TIMEOUT)


def upload(api: Api, session: str) -> Any:
    return api.stub.SetParameters.future(set_requests(session, {"w": [1.0, 2.0, 3.0]}), timeout=TIMEOUT)


def download(api: Api, session: str) -> Any:
    return api.stub.GetParameters(pb.GetParametersRequest(session_id=session), timeout=TIMEOUT)


def fork(api: Api, session: str) -> Any:
    return api.stub.ForkSession.future(pb.ForkSessionRequest(session_id=session), timeout=TIMEOUT)


def converse(api: Api, session: str) -> Any:
    def requests() -> Iterator[pb.PipelineRequest]:
        for index in range(1, 20):
            yield pb.PipelineRequest(id=index, train_step=pb.TrainStepRequest(session_id=session, inputs=X))

    return api.stub.Pipeline(requests(), timeout=TIMEOUT)


@pytest.mark.parametrize("begin", [forward, train, upload, download, fork, converse])
def test_calls_that_are_cancelled_at_any_moment_give_everything_back(
    serve: Any, until: Any, begin: Callable[[Api, str], Any]
) -> None:
    api = serve(max_concurrent_calls=4, max_concurrent_streams=4, max_concurrent_pipelines=4, max_sessions=1_000)
    victim, calm = api.create(), api.create()
    api.train(calm)
    before = look(api, calm)
    draw = random.Random(7)
    for _ in range(CALLS):
        call = begin(api, victim)
        time.sleep(draw.uniform(0, LONGEST))
        call.cancel()
    admission = api.server.admission
    until(lambda: not any(admission.usage(quota)[0] for quota in QUOTAS))
    assert not admission._request_bytes
    assert look(api, calm) == before
    step = api.info(victim).step
    assert api.train(victim).result.step == step + 1


def test_deadlines_of_any_length_leave_a_session_whole(serve: Any, until: Any) -> None:
    """Each step is counted once or not at all, and its answer tells which, but for those that came too late."""
    api = serve()
    session, done, late = api.create(), 0, 0
    draw = random.Random(7)
    for _ in range(CALLS):
        request = pb.TrainStepRequest(session_id=session, inputs=X)
        try:
            api.stub.TrainStep(request, timeout=draw.uniform(1e-4, LONGEST))
            done += 1
        except grpc.RpcError as error:
            failed: Any = error
            assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            late += 1
    until(lambda: not any(api.server.admission.usage(quota)[0] for quota in QUOTAS))
    assert done <= api.info(session).step <= done + late
    assert late


def look(api: Api, session: str) -> str:
    request = pb.GetSessionRequest(session_id=session, digest=True)
    return str(api.stub.GetSession(request, timeout=TIMEOUT).digest)
