"""Leases, waiting steps, digests, branches and files, over a real server."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.test_leases import TIMEOUT, attach, digest

from backwire_api import tensors
from backwire_api.file_stream import encode_file
from backwire_api.v1 import gradient_service_pb2 as pb


def exported(api: Any, session: str) -> list[pb.FileChunk]:
    responses = api.stub.ExportSession(pb.ExportSessionRequest(session_id=session), timeout=TIMEOUT)
    return [response.chunk for response in responses]


def imported(api: Any, chunks: list[pb.FileChunk], request_id: str = "") -> pb.Session:
    requests = [pb.ImportSessionRequest(chunk=chunk) for chunk in chunks]
    requests[0].request_id = request_id
    session: pb.Session = api.stub.ImportSession(iter(requests), timeout=TIMEOUT).session
    return session


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
