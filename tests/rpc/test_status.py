"""GetStatus and GetSessionHistory, through a real server."""

import threading
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import TIMEOUT, Refusal

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config import version


def status(api: Any, **request: Any) -> pb.GetStatusResponse:
    response: pb.GetStatusResponse = api.stub.GetStatus(pb.GetStatusRequest(**request), timeout=TIMEOUT)
    return response


def history(api: Any, session: str, cursor: str = "") -> pb.GetSessionHistoryResponse:
    request = pb.GetSessionHistoryRequest(session_id=session, cursor=cursor)
    response: pb.GetSessionHistoryResponse = api.stub.GetSessionHistory(request, timeout=TIMEOUT)
    return response


def test_a_status_tells_the_server_its_load_and_its_sessions(serve: Any) -> None:
    api = serve(max_concurrent_calls=7, max_sessions=9, max_total_bytes=1 << 30)
    first, second = api.create(), api.create()
    answer = api.train(first)
    found = status(api)
    assert (found.version, found.workers, found.session_count, found.awake_count) == (version(), 1, 2, 2)
    assert found.start_time.ToNanoseconds() < found.time.ToNanoseconds()
    load = found.load
    assert (load.calls, load.sessions) == (pb.Usage(used=0, limit=7), pb.Usage(used=2, limit=9))
    assert (load.session_bytes.used, load.session_bytes.limit) == (found.session_bytes, 1 << 30)
    assert found.session_bytes == sum(each.memory_bytes for each in found.sessions) > 0
    trained, untouched = found.sessions
    assert (trained.session_id, untouched.session_id) == (first, second)
    assert (trained.tenant, trained.state, trained.step, trained.steps) == ("default", pb.SESSION_STATE_AWAKE, 1, 1)
    assert (trained.loss, trained.gradient_norm) == (answer.loss, answer.result.gradient_norm)
    assert trained.learning_rate == answer.result.learning_rate
    assert not any(untouched.HasField(name) for name in ("loss", "gradient_norm", "learning_rate"))


def test_no_more_sessions_are_told_than_asked_for(api: Any) -> None:
    ids = [api.create() for _ in range(3)]
    assert [each.session_id for each in status(api, max_sessions=2).sessions] == ids[:0:-1]
    with pytest.raises(grpc.RpcError) as caught:
        status(api, max_sessions=-1)
    assert (Refusal(caught.value).reason, Refusal(caught.value).field) == ("INVALID_ARGUMENT", "max_sessions")


def test_calls_in_progress_are_counted_by_their_kind(api: Any) -> None:
    session, end = api.create(), threading.Event()

    def requests() -> Any:
        yield pb.PipelineRequest(id=1, get_session=pb.GetSessionRequest(session_id=session))
        end.wait(TIMEOUT)

    stream = api.stub.Pipeline(requests(), timeout=TIMEOUT)
    next(stream)
    assert (status(api).load.pipelines.used, status(api).load.calls.used) == (1, 0)
    end.set()
    assert list(stream) == []


def test_a_history_tells_each_step_and_goes_on_from_its_cursor(api: Any) -> None:
    session = api.create()
    assert not history(api, session).steps
    answers = [api.train(session) for _ in range(3)]
    found = history(api, session)
    assert [each.step for each in found.steps] == [1, 2, 3]
    assert [(each.loss, each.gradient_norm) for each in found.steps] == [
        (each.loss, each.result.gradient_norm) for each in answers
    ]
    assert found.steps[0].time.ToNanoseconds() <= found.steps[2].time.ToNanoseconds() <= found.time.ToNanoseconds()
    assert found.session.steps == 3
    assert not history(api, session, found.next_cursor).steps
    last = api.train(session)
    (record,) = history(api, session, found.next_cursor).steps
    assert (record.step, record.loss) == (4, last.loss)


def test_a_session_that_is_not_there_has_no_history(api: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        history(api, "none")
    assert Refusal(caught.value).reason == "SESSION_NOT_FOUND"
