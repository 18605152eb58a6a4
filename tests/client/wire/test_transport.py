"""Deadlines, retries and metadata of calls on a real socket."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import backwire as bw
from backwire._wire._stub import Stub
from backwire_api.v1 import gradient_service_pb2 as pb

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def lost(context: Any) -> None:
    context.abort(UNAVAILABLE, "connection reset")


def test_a_lost_answer_is_asked_for_again_and_the_step_applied_once(
    session: bw.Session, service: "FakeService"
) -> None:
    service.after["Step"] = [lost, lost]
    assert session.step().step == 1
    first, second, third = service.requests["Step"]
    assert first.request_id == second.request_id == third.request_id != ""
    assert session.info().step == 1


@pytest.mark.parametrize("reason", ["SHUTTING_DOWN", "NO_WORKER", "RECOVERING", "WRONG_REPLICA", "STORAGE_FAILED"])
def test_a_server_that_cannot_serve_for_now_is_asked_again(
    session: bw.Session, service: "FakeService", refuse: Any, reason: str
) -> None:
    service.before["Step"] = [refuse(UNAVAILABLE, reason=reason, retry_after=0.02)] * 3
    assert session.step().step == 1
    assert len(service.requests["Step"]) == 4


@pytest.mark.parametrize("code", ["ABORTED", "DEADLINE_EXCEEDED", "NOT_FOUND", "FAILED_PRECONDITION", "DATA_LOSS"])
def test_what_repeating_does_not_mend_is_told_at_once(
    session: bw.Session, service: "FakeService", refuse: Any, code: str
) -> None:
    service.before["Step"] = [refuse(grpc.StatusCode[code])] * 2
    with pytest.raises(bw.BackwireError):
        session.step()
    assert len(service.requests["Step"]) == 1


@pytest.mark.parametrize("rpc", ["CreateSession", "Forward", "Backward", "TrainStep", "ZeroGradients", "DeleteSession"])
def test_every_mutation_is_repeated_under_its_request_id(
    rpc: str, client: bw.Client, session: bw.Session, service: "FakeService"
) -> None:
    forward = session.forward({"x": [[1, 2]]})
    service.requests.clear()
    service.after[rpc] = [lost]
    calls: dict[str, Callable[[], object]] = {
        "CreateSession": lambda: client.create_session(bw.squared_error(bw.parameter("p", 1.0), 2.0)),
        "Forward": lambda: session.forward({"x": [[1, 2]]}),
        "Backward": forward.backward,
        "TrainStep": lambda: session.train_step({"x": [[1, 2]]}),
        "ZeroGradients": session.zero_gradients,
        "DeleteSession": session.close,
    }
    calls[rpc]()
    first, second = service.requests[rpc]
    assert first == second


def test_streams_are_repeated_from_their_start(session: bw.Session, service: "FakeService") -> None:
    service.before["GetParameters"] = [lost]
    assert list(session.parameters()) == ["w", "b", "table"]
    service.after["SetParameters"] = [lost]
    session.set_parameters({"b": [7, 8]})
    assert len(service.requests["SetParameters"]) == 2
    assert session.parameters(["b"])["b"].tolist() == [7, 8]


def test_an_overloaded_server_is_asked_again(session: bw.Session, service: "FakeService", refuse: Any) -> None:
    busy = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after=0.05)
    service.before["Step"] = [busy, busy]
    assert session.step().step == 1


def test_retries_end_with_the_last_error(session: bw.Session, service: "FakeService") -> None:
    service.before["Step"] = [lost] * 9
    with pytest.raises(bw.UnavailableError, match=r"connection reset.*may or may not.*request_id=") as caught:
        session.step(request_id="mine")
    assert len(service.requests["Step"]) == 4
    assert (caught.value.code, caught.value.request_id) == (UNAVAILABLE, "mine")


def test_a_mutation_without_request_id_is_not_repeated(session: bw.Session, service: "FakeService") -> None:
    service.before["Step"] = [lost]
    with pytest.raises(bw.UnavailableError):
        session.step(request_id="")
    assert len(service.requests["Step"]) == 1


def test_other_errors_are_not_repeated(session: bw.Session, service: "FakeService") -> None:
    service.before["Step"] = [lambda context: context.abort(grpc.StatusCode.INTERNAL, "broken")]
    with pytest.raises(bw.ServerError, match="broken"):
        session.step()
    assert len(service.requests["Step"]) == 1


def test_a_mutation_that_misses_its_deadline_says_how_to_repeat_it(session: bw.Session, service: "FakeService") -> None:
    service.after["Step"] = [lambda _: time.sleep(0.4)]
    with pytest.raises(
        bw.DeadlineExceededError, match="by timeout=; the call may or may not have been applied"
    ) as caught:
        session.step(timeout=0.1)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_id
    assert session.step(request_id=caught.value.request_id).step == 1


def test_retries_stay_within_the_deadline(target: str, service: "FakeService") -> None:
    service.before["ListSessions"] = [lost] * 200
    for timeout in (0.3, 3.0):  # a busy machine may repeat nothing in the first
        with bw.connect(target, timeout=timeout, retry=bw.Retry(attempts=100, initial=0.05)) as client:
            with pytest.raises((bw.UnavailableError, bw.DeadlineExceededError)):
                list(client.sessions())
            if len(service.requests["ListSessions"]) > 1:
                break
    assert 1 < len(service.requests["ListSessions"]) < 100


def test_the_default_deadline_is_a_minute_and_each_call_may_have_its_own(target: str, service: "FakeService") -> None:
    with bw.connect(target) as client:
        list(client.sessions())
        list(client.sessions(timeout=5))
        list(client.sessions(timeout=math.inf))
    first, second, third = service.remaining
    assert 50 < first < 61
    assert 0 < second < 6
    assert third > 1e6


def test_a_timeout_that_leaves_no_time_is_refused(session: bw.Session) -> None:
    for timeout in (0, -1, math.nan):
        with pytest.raises(bw.InvalidRequestError, match="leaves no time"):
            session.step(timeout=timeout)


def test_a_timeout_that_is_no_number_is_refused(session: bw.Session) -> None:
    with pytest.raises(bw.InvalidRequestError, match="'60' is no number; give seconds"):
        session.step(timeout="60")  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with (
        bw.connect("127.0.0.1:1", retry=bw.Retry(attempts=2, initial=0.01)) as client,
        pytest.raises(bw.UnavailableError, match="check the target"),
    ):
        list(client.sessions())


def test_a_closed_client_says_so(target: str) -> None:
    client = bw.connect(target)
    client.close()
    client.close()
    with pytest.raises(bw.ClientClosedError, match="connect again"):
        list(client.sessions())


def test_threads_share_a_client(session: bw.Session) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: session.step().step, range(40)))
    assert sorted(results) == list(range(1, 41))


def test_messages_above_grpcs_default_of_4_mib_pass(session: bw.Session) -> None:
    x = [[1.0, 2.0]] * 700_000
    assert session.forward({"x": x}).outputs["y"].shape == (700_000, 2)


def test_the_stub_has_all_methods_of_the_service_but_pipeline() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["GradientService"].methods}
    stub = Stub(grpc.insecure_channel("127.0.0.1:1"))
    assert {name for name in methods if hasattr(stub, name)} == methods - {"Pipeline"}


def test_a_dead_server_is_not_hammered_by_many_threads(target: str, service: "FakeService") -> None:
    with bw.connect(target, retry=bw.Retry(seconds=1.0, initial=0.01, maximum=0.01, rate=10)) as client:
        list(client.sessions())
        service.requests.clear()
        service.before["ListSessions"] = [lost] * 10_000

        def call(_: int) -> None:
            with pytest.raises(bw.UnavailableError):
                list(client.sessions())

        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(call, range(4)))
        lasted = time.monotonic() - began
    assert 4 <= len(service.requests["ListSessions"]) <= 4 + 10 + 10 * lasted + 1
