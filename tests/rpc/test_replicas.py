"""A replica refuses calls for another's sessions so that they may be sent again, and ends a stream with the first."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import TIMEOUT, Api

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Capacity
from backwire_server.rpc.server import Server
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits


@pytest.fixture
def replicas() -> Iterator[list[Api]]:
    """Two servers, which are called a and b."""
    apis = [Api(Server("127.0.0.1:0", Limits(), Capacity(), Home(replica=name))) for name in "ab"]
    yield apis
    for api in apis:
        api.channel.close()
        api.server.stop(5.0)


def test_a_call_for_a_session_of_another_may_be_sent_again(replicas: list[Api], refused: Any) -> None:
    one, other = replicas
    session = one.create()
    told = refused(lambda: other.train(session))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "WRONG_REPLICA")
    assert told.retry_after is not None
    assert one.train(session).result.step == 1


def test_a_stream_ends_with_the_first_request_for_a_session_of_another(replicas: list[Api], refused: Any) -> None:
    one, other = replicas
    mine, foreign = other.create(), one.create()
    asked = [
        pb.PipelineRequest(id=number, get_session=pb.GetSessionRequest(session_id=session))
        for number, session in enumerate((mine, foreign, mine), 1)
    ]
    answers: list[int] = []

    def converse() -> None:
        answers.extend(answer.id for answer in other.stub.Pipeline(iter(asked), timeout=TIMEOUT))

    told = refused(converse)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "WRONG_REPLICA")
    assert answers == [1]
