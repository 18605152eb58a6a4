"""Every call of the contract reaches every session through the one address, whichever worker keeps it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.workers.calling import TIMEOUT, X, create, dot_graph, inputs, reason_of, whole

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb


@pytest.fixture
def pair(served: Any) -> Iterator[list[str]]:
    """Sessions of different workers."""
    made = [create(served.stub)]
    while len(pair := {session.address: session.session_id for session in made}) < 2:
        made.append(create(served.stub))
    yield list(pair.values())
    for session in made:
        served.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session.session_id))


def test_sessions_are_spread_evenly(start: Any) -> None:
    stub = start("--max-sessions", "9").stub
    made = [create(stub).address for _ in range(9)]
    assert sorted(made.count(each) for each in set(made)) == [4, 5]
    with pytest.raises(grpc.RpcError) as caught:
        create(stub)
    assert reason_of(caught.value) == "TOO_MANY_SESSIONS"


def test_unary_calls_reach_both_workers(served: Any, pair: list[str]) -> None:
    stub = served.stub
    for each in pair:
        forward = stub.Forward(pb.ForwardRequest(session_id=each, inputs=inputs()), timeout=TIMEOUT)
        assert forward.loss == 9.0
        backward = pb.BackwardRequest(session_id=each, forward_id=forward.forward_id, wrt=["x"])
        answer = stub.Backward(backward, timeout=TIMEOUT)
        assert tensors.decode(answer.input_gradients["x"]).tolist() == [1.0, 2.0, 3.0]
        assert stub.Step(pb.StepRequest(session_id=each)).result.step == 1
        assert stub.TrainStep(pb.TrainStepRequest(session_id=each, inputs=inputs())).result.step == 2
        assert stub.ZeroGradients(pb.ZeroGradientsRequest(session_id=each)).contributions == 0
        told = stub.DescribeSession(pb.DescribeSessionRequest(session_id=each, inputs=inputs(), passes=1))
        assert len(told.description.nodes) == len(told.graph.nodes)
        checked = stub.CheckGradients(pb.CheckGradientsRequest(session_id=each, inputs=inputs()))
        assert checked.parameters[0].worst_error < 1e-5
        assert stub.GetSession(pb.GetSessionRequest(session_id=each)).session.step == 2


def test_streams_reach_both_workers(served: Any, pair: list[str]) -> None:
    for number, each in enumerate(pair):
        requests = [pb.SetParametersRequest(session_id=each), pb.SetParametersRequest(last=True)]
        requests.insert(1, pb.SetParametersRequest(chunk=whole("w", X * number)))
        served.stub.SetParameters(iter(requests), timeout=TIMEOUT)
    for number, each in enumerate(pair):
        parts = list(served.stub.GetParameters(pb.GetParametersRequest(session_id=each), timeout=TIMEOUT))
        assert np.frombuffer(parts[0].chunk.data).tolist() == (X * number).tolist()
        gradients = list(served.stub.GetGradients(pb.GetGradientsRequest(session_id=each), timeout=TIMEOUT))
        assert np.frombuffer(gradients[0].chunk.data).tolist() == [0.0, 0.0, 0.0]


def test_calls_on_no_session_are_answered(served: Any) -> None:
    described = served.stub.DescribeGraph(pb.DescribeGraphRequest(graph=dot_graph()), timeout=TIMEOUT)
    assert described.parameter_count == 3
    assert "Gemm" in {op.name for op in served.stub.ListOps(pb.ListOpsRequest(), timeout=TIMEOUT).ops}
    health = health_pb2_grpc.HealthStub(served.channel)
    for service in ("", "backwire_api.v1.GradientService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT).status
        assert status == health_pb2.HealthCheckResponse.SERVING


def test_a_pipeline_serves_sessions_of_both_workers_in_order(served: Any, pair: list[str]) -> None:
    def requests() -> Iterator[pb.PipelineRequest]:
        for number in range(1, 21):
            each = pair[(number // 3) % 2]
            if number % 5 == 0:
                yield pb.PipelineRequest(id=number, get_session=pb.GetSessionRequest(session_id=each))
            else:
                train = pb.TrainStepRequest(session_id=each, inputs=inputs())
                yield pb.PipelineRequest(id=number, train_step=train)

    answers = list(served.stub.Pipeline(requests(), timeout=TIMEOUT))
    assert [answer.id for answer in answers] == list(range(1, 21))
    assert not [answer for answer in answers if answer.HasField("error")]
    steps = [served.stub.GetSession(pb.GetSessionRequest(session_id=each)).session.step for each in pair]
    assert sum(steps) == 16


def test_a_pipeline_answers_each_request_while_the_next_waits(served: Any, pair: list[str]) -> None:
    turn = threading.Semaphore(1)

    def requests() -> Iterator[pb.PipelineRequest]:
        for number in range(1, 5):
            assert turn.acquire(timeout=TIMEOUT)
            call = pb.GetSessionRequest(session_id=pair[number % 2])
            yield pb.PipelineRequest(id=number, get_session=call)

    for answer in served.stub.Pipeline(requests(), timeout=TIMEOUT):
        assert answer.get_session.session.session_id == pair[answer.id % 2]
        turn.release()


def test_chunks_on_a_pipeline_go_where_their_request_goes(served: Any, pair: list[str]) -> None:
    def requests() -> Iterator[pb.PipelineRequest]:
        for number, each in enumerate(pair, 1):
            yield pb.PipelineRequest(id=number, chunk=whole("x", X * number))
            yield pb.PipelineRequest(id=number, forward=pb.ForwardRequest(session_id=each))

    losses = [answer.forward.loss for answer in served.stub.Pipeline(requests(), timeout=TIMEOUT)]
    assert losses == [9.0, 18.0]


def test_chunks_on_a_pipeline_that_no_call_may_have_are_refused_before_their_request_comes(start: Any) -> None:
    def chunks() -> Iterator[pb.PipelineRequest]:
        while True:
            yield pb.PipelineRequest(id=1, chunk=whole("x", np.zeros(1_000)))

    with pytest.raises(grpc.RpcError) as caught:
        list(start("--workers", "2", "--max-pass-bytes", "100KB").stub.Pipeline(chunks(), timeout=TIMEOUT))
    assert reason_of(caught.value) == "CALL_TOO_LARGE"


def test_a_pipeline_that_breaks_off_or_says_nothing_ends_as_with_one_process(served: Any) -> None:
    assert list(served.stub.Pipeline(iter(()), timeout=TIMEOUT)) == []
    with pytest.raises(grpc.RpcError) as caught:
        list(served.stub.Pipeline(iter([pb.PipelineRequest(id=1, chunk=whole("x", X))]), timeout=TIMEOUT))
    assert reason_of(caught.value) == "INVALID_ARGUMENT"


def test_a_request_for_no_session_on_a_pipeline_is_answered_in_its_turn(served: Any, pair: list[str]) -> None:
    ids = [pair[0], "nonsense", "", pair[1]]
    calls = [pb.GetSessionRequest(session_id=each) for each in ids]
    requests = [pb.PipelineRequest(id=number, get_session=call) for number, call in enumerate(calls, 1)]
    answers = list(served.stub.Pipeline(iter(requests), timeout=TIMEOUT))
    kinds = [(answer.id, answer.WhichOneof("kind")) for answer in answers]
    assert kinds == [(1, "get_session"), (2, "error"), (3, "error"), (4, "get_session")]


def test_a_pipeline_that_is_malformed_ends_with_the_workers_refusal(served: Any, pair: list[str]) -> None:
    call = pb.GetSessionRequest(session_id=pair[0])
    requests = [pb.PipelineRequest(id=2, get_session=call), pb.PipelineRequest(id=1, get_session=call)]
    with pytest.raises(grpc.RpcError) as caught:
        list(served.stub.Pipeline(iter(requests), timeout=TIMEOUT))
    assert reason_of(caught.value) == "INVALID_ARGUMENT"


def test_refusals_keep_their_status_and_details(served: Any, pair: list[str]) -> None:
    for each in pair:
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.Step(pb.StepRequest(session_id=each), timeout=TIMEOUT)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason_of(caught.value) == "NO_GRADIENTS"
        assert "run Backward first" in str(caught.value.details())


@pytest.mark.parametrize("session_id", ["", "nonsense", "s_", "s_" + "A" * 32])
def test_an_id_of_no_session_is_refused_as_ever(served: Any, session_id: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: served.stub.GetSession(pb.GetSessionRequest(session_id=session_id), timeout=TIMEOUT),
        lambda: list(served.stub.GetParameters(pb.GetParametersRequest(session_id=session_id), timeout=TIMEOUT)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert reason_of(caught.value) == "SESSION_NOT_FOUND"


def test_a_call_without_a_message_or_with_nonsense_is_refused(served: Any) -> None:
    for method in ("Forward", "CreateSession", "ListSessions"):
        raw = served.channel.unary_unary(f"/backwire_api.v1.GradientService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            raw(b"\xff\xff\xff", timeout=TIMEOUT)
        assert reason_of(caught.value) == "INVALID_ARGUMENT"
    unknown = served.channel.unary_unary("/backwire_api.v1.GradientService/Nonsense")
    with pytest.raises(grpc.RpcError) as caught:
        unknown(b"", timeout=TIMEOUT)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_creation_that_is_repeated_gives_the_same_session(served: Any) -> None:
    ids = {create(served.stub, request_id="again").session_id for _ in range(4)}
    assert len(ids) == 1
    with pytest.raises(grpc.RpcError) as caught:
        create(served.stub, request_id="again", seed=7)
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    with pytest.raises(grpc.RpcError) as caught:
        create(served.stub, request_id="again", seed=7)
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    (session_id,) = ids
    for _ in range(2):
        served.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session_id, request_id="gone"), timeout=TIMEOUT)


def test_the_id_of_a_creation_cannot_delete_whichever_worker_keeps_the_session(served: Any, pair: list[str]) -> None:
    made = create(served.stub, request_id="once").session_id
    for each in pair:
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.DeleteSession(pb.DeleteSessionRequest(session_id=each, request_id="once"), timeout=TIMEOUT)
        assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    served.stub.DeleteSession(pb.DeleteSessionRequest(session_id=made))


def test_sessions_are_listed_in_the_order_of_their_creation(served: Any) -> None:
    made = [create(served.stub).session_id for _ in range(7)]
    for size in (1, 3, 100):
        found: list[str] = []
        token = ""
        while not found or token:
            request = pb.ListSessionsRequest(page_size=size, page_token=token)
            page = served.stub.ListSessions(request, timeout=TIMEOUT)
            assert 0 < len(page.sessions) <= size
            found += [session.session_id for session in page.sessions]
            token = page.next_page_token
        assert [each for each in found if each in made] == made
    for wrong in (pb.ListSessionsRequest(page_token="AAAA"), pb.ListSessionsRequest(page_size=-1)):
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.ListSessions(wrong, timeout=TIMEOUT)
        assert reason_of(caught.value) in ("INVALID_PAGE_TOKEN", "INVALID_ARGUMENT")
    for each in made:
        served.stub.DeleteSession(pb.DeleteSessionRequest(session_id=each))


def test_a_deadline_and_a_cancellation_reach_the_worker(served: Any, pair: list[str]) -> None:
    over = threading.Event()
    for number, each in enumerate(pair):
        upload = served.stub.SetParameters.future(endless(each, over), timeout=0.3 if number else TIMEOUT)
        if number:
            with pytest.raises(grpc.RpcError) as caught:
                upload.result()
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            upload.cancel()
            assert upload.cancelled()
    over.set()
    served.stub.TrainStep(pb.TrainStepRequest(session_id=pair[0], inputs=inputs()), timeout=TIMEOUT)


def endless(session_id: str, over: threading.Event) -> Iterator[pb.SetParametersRequest]:
    yield pb.SetParametersRequest(session_id=session_id)
    over.wait(TIMEOUT)
