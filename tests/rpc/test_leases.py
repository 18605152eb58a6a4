"""The lease of a session: who may write, and until when."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb

TIMEOUT = 20.0


def attach(api: Any, session: str, holder: str = "me", **request: Any) -> pb.Lease:
    made = pb.AttachSessionRequest(session_id=session, holder=holder, **request)
    lease: pb.Lease = api.stub.AttachSession(made, timeout=TIMEOUT).lease
    return lease


def detach(api: Any, session: str, number: int) -> None:
    api.stub.DetachSession(pb.DetachSessionRequest(session_id=session, number=number), timeout=TIMEOUT)


def digest(api: Any, session: str) -> str:
    response = api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True), timeout=TIMEOUT)
    assert response.session.session_id == session
    return str(response.digest)


def mutations(api: Any, session: str, forward_id: str, requests: Any) -> dict[str, Callable[[int], Any]]:
    """Every kind of mutation by its name, each a function of the lease."""
    inputs = {"x": tensors.encode(np.ones(3))}

    def send(rpc: Any, kind: Any, **fields: Any) -> Callable[[int], Any]:
        return lambda lease: rpc(kind(session_id=session, lease=lease, **fields), timeout=TIMEOUT)

    def set_parameters(lease: int) -> Any:
        stream = list(requests(session, {"w": np.zeros(3)}))
        stream[0].lease = lease
        return api.stub.SetParameters(iter(stream), timeout=TIMEOUT)

    return {
        "forward": send(api.stub.Forward, pb.ForwardRequest, inputs=inputs),
        "backward": send(api.stub.Backward, pb.BackwardRequest, forward_id=forward_id, retain=True),
        "step": send(api.stub.Step, pb.StepRequest),
        "train_step": send(api.stub.TrainStep, pb.TrainStepRequest, inputs=inputs),
        "zero_gradients": send(api.stub.ZeroGradients, pb.ZeroGradientsRequest),
        "set_parameters": set_parameters,
    }


def test_only_the_holder_of_the_lease_may_write(api: Any, refused: Any, set_parameters_requests: Any) -> None:
    session = api.create()
    forward_id = api.forward(session).forward_id
    every = mutations(api, session, forward_id, set_parameters_requests)
    assert not api.info(session).HasField("lease")
    lease = attach(api, session, "first", timeout={"seconds": 40})
    told = api.info(session).lease
    assert (lease.number, told.number, told.holder, told.timeout.seconds) == (1, 1, "first", 40)
    before = digest(api, session)
    for name, send in every.items():
        for wrong in (0, 2):
            error = refused(lambda send=send, wrong=wrong: send(wrong))
            assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "WRITER_FENCED"), name
            assert "first" in error.message, name
    assert digest(api, session) == before
    api.forward(session, mode=pb.MODE_EVAL)
    for send in every.values():
        send(1)
    detach(api, session, 1)
    assert not api.info(session).HasField("lease")
    every["backward"](0)
    every["step"](0)


def test_a_pipeline_is_fenced_as_calls_are(api: Any, converse: Any, failure: Any) -> None:
    session = api.create()
    attach(api, session)
    stream = converse(api)
    inputs = {"x": tensors.encode(np.ones(3))}
    for lease in (0, 1):
        name = f"p{lease}"
        stream.send(
            forward=pb.ForwardRequest(session_id=session, inputs=inputs, forward_id=name, lease=lease),
            dependency=pb.DEPENDENCY_NONE,
        )
        for request in (
            {"backward": pb.BackwardRequest(session_id=session, forward_id="p1", lease=lease)},
            {"step": pb.StepRequest(session_id=session, lease=lease)},
            {"train_step": pb.TrainStepRequest(session_id=session, inputs=inputs, lease=lease)},
            {"zero_gradients": pb.ZeroGradientsRequest(session_id=session, lease=lease)},
        ):
            stream.send(**request, dependency=pb.DEPENDENCY_NONE)
    answers = stream.answers()
    assert [failure(each)[0] for each in answers[:5]] == ["WRITER_FENCED"] * 5
    assert [each.WhichOneof("kind") for each in answers[5:]] == [
        "forward",
        "backward",
        "step",
        "train_step",
        "zero_gradients",
    ]


def test_a_lease_is_taken_over_or_waited_for(api: Any, refused: Any) -> None:
    session = api.create()
    attach(api, session, "first", timeout={"seconds": 30})
    error = refused(lambda: attach(api, session, "second"))
    assert (error.reason, error.code) == ("LEASE_HELD", grpc.StatusCode.ABORTED)
    assert "first" in error.message
    assert 0 < error.retry_after <= 30
    taken = attach(api, session, "second", take_over=True, request_id="r", timeout={"nanos": 200_000_000})
    assert taken.number == 2
    again = attach(api, session, "second", take_over=True, request_id="r", timeout={"nanos": 200_000_000})
    assert again == taken, "a repetition takes nothing over"
    error = refused(lambda: detach(api, session, 1))
    assert error.reason == "WRITER_FENCED"
    assert api.train(session, lease=2).result.step == 1


def test_a_lease_that_ran_out_writes_until_another_is_given(api: Any, refused: Any, until: Any) -> None:
    session = api.create()
    attach(api, session, "first", timeout={"nanos": 50_000_000})

    def second() -> bool:
        try:
            return attach(api, session, "second").number == 2
        except grpc.RpcError:
            return False

    assert api.train(session, lease=1).result.step == 1
    until(second)
    assert refused(lambda: api.train(session, lease=1)).reason == "WRITER_FENCED"
    assert api.train(session, lease=2).result.step == 2


def test_a_mutation_is_the_same_under_another_lease(api: Any) -> None:
    session = api.create()
    first = attach(api, session)
    done = api.train(session, request_id="r", lease=first.number)
    second = attach(api, session, take_over=True)
    assert api.train(session, request_id="r", lease=second.number) == done
    assert api.info(session).step == 1
