"""Leases, waiting steps, digests, branches and files, over a real server."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.file_stream import encode_file
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


def exported(api: Any, session: str) -> list[pb.FileChunk]:
    responses = api.stub.ExportSession(pb.ExportSessionRequest(session_id=session), timeout=TIMEOUT)
    return [response.chunk for response in responses]


def imported(api: Any, chunks: list[pb.FileChunk], request_id: str = "") -> pb.Session:
    requests = [pb.ImportSessionRequest(chunk=chunk) for chunk in chunks]
    requests[0].request_id = request_id
    session: pb.Session = api.stub.ImportSession(iter(requests), timeout=TIMEOUT).session
    return session


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


def test_one_step_applies_the_contributions_of_many(api: Any) -> None:
    session, workers = api.create(), 4
    step = api.stub.Step.future(
        pb.StepRequest(session_id=session, options=pb.StepOptions(after_contributions=workers)), timeout=TIMEOUT
    )

    def contribute(number: int) -> None:
        api.backward(session, api.forward(session, np.full(3, float(number))).forward_id)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(contribute, range(workers - 1)))
        assert not step.done()
        contribute(workers - 1)
    result = step.result().result
    assert (result.step, result.contributions) == (1, workers)
    np.testing.assert_array_equal(api.parameters(session)["w"], np.array([1.0, 2.0, 3.0]) - 0.5 * sum(range(workers)))


def test_a_step_waits_no_longer_than_its_deadline_and_lets_others_work(api: Any, refused: Any) -> None:
    session = api.create()
    api.backward(session, api.forward(session).forward_id)
    options = pb.StepOptions(after_contributions=2)
    waiting = api.stub.Step.future(pb.StepRequest(session_id=session, options=options), timeout=0.5)
    assert api.forward(session, mode=pb.MODE_EVAL).HasField("loss")
    with pytest.raises(grpc.RpcError) as caught:
        waiting.result()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (api.info(session).step, api.info(session).contributions) == (0, 1)
    assert api.step(session, after_contributions=1).contributions == 1
    inputs = {"x": tensors.encode(np.ones(3))}
    request = pb.TrainStepRequest(session_id=session, inputs=inputs, options=options)
    error = refused(lambda: api.stub.TrainStep(request))
    assert (error.reason, error.field) == ("INVALID_ARGUMENT", "options.after_contributions")


def test_the_digest_is_that_of_the_state(api: Any, converse: Any) -> None:
    one, other = api.create(), api.create()
    assert digest(api, one) == digest(api, other)
    found = api.train(one, options=pb.StepOptions(digest=True)).result.digest
    assert len(bytes.fromhex(found)) == 32
    assert found == digest(api, one) != digest(api, other)
    api.backward(other, api.forward(other).forward_id)
    assert digest(api, one) != digest(api, other)
    assert api.step(other, digest=True).digest == found
    assert api.train(other).result.digest == ""
    stream = converse(api)
    stream.send(get_session=pb.GetSessionRequest(session_id=one, digest=True))
    stream.send(get_session=pb.GetSessionRequest(session_id=one))
    assert [each.get_session.digest for each in stream.answers()] == [found, ""]


def test_a_branch_goes_its_own_way(api: Any) -> None:
    session = api.create()
    api.train(session)
    attach(api, session)
    request = pb.ForkSessionRequest(session_id=session, request_id="r")
    branch = api.stub.ForkSession(request, timeout=TIMEOUT).session
    assert branch.session_id not in ("", session)
    assert (branch.step, branch.HasField("lease")) == (1, False)
    assert api.stub.ForkSession(request, timeout=TIMEOUT).session.session_id == branch.session_id
    assert digest(api, branch.session_id) == digest(api, session)
    assert api.train(branch.session_id).result.step == 2
    assert api.info(session).step == 1
    assert digest(api, branch.session_id) != digest(api, session)


def test_a_session_comes_out_of_its_file_with_the_same_bits(api: Any, serve: Any) -> None:
    session = api.create(seed=7)
    api.train(session)
    api.backward(session, api.forward(session).forward_id)
    chunks = exported(api, session)
    elsewhere = serve()
    made = imported(elsewhere, chunks, "r")
    assert (made.step, made.contributions, made.seed) == (1, 1, 7)
    assert imported(elsewhere, chunks, "r").session_id == made.session_id
    assert digest(elsewhere, made.session_id) == digest(api, session)
    assert api.step(session, digest=True) == elsewhere.step(made.session_id, digest=True)


def test_a_file_that_is_no_session_is_refused(api: Any, refused: Any) -> None:
    chunks = list(encode_file([b"nothing"]))
    error = refused(lambda: imported(api, chunks))
    assert (error.reason, error.code) == ("INVALID_EXPORT", grpc.StatusCode.INVALID_ARGUMENT)
    chunks[0].last = False
    assert "broke off" in refused(lambda: imported(api, chunks)).message
    assert refused(lambda: api.stub.ImportSession(iter(()))).reason == "INVALID_ARGUMENT"
    assert not api.stub.ListSessions(pb.ListSessionsRequest()).sessions


def test_a_file_counts_only_as_it_passes(serve: Any, until: Any, refused: Any) -> None:
    api = serve(max_request_bytes=3 << 20)
    session = api.create()
    release, begun = threading.Event(), threading.Event()

    def slowly() -> Iterator[pb.SetParametersRequest]:
        begun.set()
        yield pb.SetParametersRequest(session_id=session)
        release.wait(TIMEOUT)

    slow = api.stub.SetParameters.future(slowly(), timeout=TIMEOUT)  # one that nobody refers to is cancelled
    assert begun.wait(TIMEOUT)
    until(lambda: api.server.admission._request_bytes)
    error = refused(lambda: imported(api, list(encode_file([bytes(8 << 20)]))))
    assert not slow.done()
    release.set()
    assert error.reason == "INVALID_EXPORT", "it was received whole, and found to be no session"


def test_what_is_kept_in_memory_has_no_checkpoints(api: Any, refused: Any) -> None:
    session = api.create()
    assert api.info(session).durability == pb.DURABILITY_MEMORY
    for request in (
        lambda: api.stub.SaveCheckpoint(pb.SaveCheckpointRequest(session_id=session, name="n")),
        lambda: api.stub.RestoreCheckpoint(pb.RestoreCheckpointRequest(session_id=session, name="n")),
        lambda: api.stub.RestoreCheckpoint(pb.RestoreCheckpointRequest(session_id=session, step=0)),
        lambda: api.create(durability=pb.DURABILITY_JOURNAL),
        lambda: api.create(durability=pb.DURABILITY_FSYNC),
    ):
        error = refused(request)
        assert (error.reason, error.code) == ("NOT_DURABLE", grpc.StatusCode.FAILED_PRECONDITION)
    assert not api.stub.ListCheckpoints(pb.ListCheckpointsRequest(session_id=session)).checkpoints
    assert api.info(api.create(durability=pb.DURABILITY_MEMORY)).durability == pb.DURABILITY_MEMORY


@pytest.mark.parametrize("name", ["", "../escape", "a/b", ".", "x" * 65])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str, api: Any, refused: Any) -> None:
    session = api.create()
    for call, request in (
        (api.stub.SaveCheckpoint, pb.SaveCheckpointRequest),
        (api.stub.RestoreCheckpoint, pb.RestoreCheckpointRequest),
        (api.stub.DeleteCheckpoint, pb.DeleteCheckpointRequest),
    ):
        error = refused(lambda call=call, request=request: call(request(session_id=session, name=name)))
        assert (error.reason, error.field) == ("INVALID_ARGUMENT", "name")
