"""How workers live and die: they are replaced, they drain, and none outlives the front."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import backwire as bw
from backwire_api.reasons import Reason
from backwire_api.v1 import gradient_service_pb2 as pb

W = {"w": [1.0, 2.0]}


def loss() -> bw.Value:
    w = bw.parameter("w", W["w"])
    return bw.sum(w * w)


def create(client: bw.Client) -> bw.Session:
    return client.create_session(loss(), optimizer=bw.SGD(0.25))


def two_sessions(client: bw.Client) -> tuple[bw.Session, bw.Session]:
    """Sessions of different workers."""
    made = [create(client)]
    while made[-1].info().address == made[0].info().address:
        made.append(create(client))
    return made[0], made[-1]


def test_a_worker_that_is_killed_is_replaced_and_its_sessions_are_told_to_be_lost(start: Any, until: Any) -> None:
    server = start()
    before = until(lambda: server.workers)
    with bw.connect(server.address, timeout=20) as client:
        lost, kept = two_sessions(client)
        assert kept.train_step({}).loss == 5.0
        os.kill(server.worker_of(lost), signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(bw.SessionLostError) as caught:
                lost.train_step({})
            assert caught.value.reason is Reason.SESSION_LOST
            assert "create it again" in str(caught.value)
        with pytest.raises(bw.SessionLostError):
            client.session(lost.id)
        with pytest.raises(bw.SessionLostError):
            list(lost.parameters())
        assert kept.train_step({}).loss == 1.25
        assert lost.id not in {each.id for each in client.sessions()}
        lost.close()  # as that of any session that is gone
        after = until(lambda: len(server.workers) == 2 and server.workers)
        assert len({*before} & {*after}) == 1
        again = two_sessions(client)
        assert [session.train_step({}).loss for session in again] == [5.0, 5.0]
    assert "ended with status -9; it is replaced" in "".join(server.errors)


def test_calls_in_progress_fail_when_their_worker_is_killed(start: Any, until: Any) -> None:
    server = start()
    until(lambda: server.workers)
    with bw.connect(server.address) as client:
        lost, kept = two_sessions(client)
        asked, over, answered = threading.Event(), threading.Event(), threading.Semaphore(1)

        def upload() -> Iterator[pb.SetParametersRequest]:
            yield pb.SetParametersRequest(session_id=lost.id)
            asked.set()
            over.wait(30)

        def pipeline() -> Iterator[pb.PipelineRequest]:
            for number, each in enumerate((lost, kept, lost, kept), 1):
                assert answered.acquire(timeout=20)
                if number == 3:
                    assert asked.wait(20)
                    os.kill(worker, signal.SIGKILL)
                yield pb.PipelineRequest(id=number, train_step=pb.TrainStepRequest(session_id=each.id))

        worker = server.worker_of(lost)
        uploading = server.stub.SetParameters.future(upload(), timeout=20)
        answers = []
        for answer in server.stub.Pipeline(pipeline(), timeout=20):
            answers.append(answer)
            answered.release()
        assert [(answer.id, answer.WhichOneof("kind")) for answer in answers] == [
            (1, "train_step"),
            (2, "train_step"),
            (3, "error"),
            (4, "train_step"),
        ]
        with pytest.raises(grpc.RpcError) as caught:
            uploading.result()
        error: Any = caught.value
        for told in (error.details(), answers[2].error.message):
            assert told.startswith(f"session {lost.id!r} is lost")
        over.set()


def test_the_client_repeats_a_creation_whose_worker_ended(start: Any, until: Any) -> None:
    server = start()
    for worker in until(lambda: server.workers)[:1]:
        os.kill(worker, signal.SIGKILL)
    with bw.connect(server.address, timeout=20) as client:
        assert [create(client).train_step({}).loss for _ in range(6)] == [5.0] * 6


def test_without_any_worker_health_and_calls_say_so_until_there_is_one(start: Any, until: Any) -> None:
    server = start()
    health = health_pb2_grpc.HealthStub(server.channel)

    def status() -> int:
        return int(health.Check(health_pb2.HealthCheckRequest(), timeout=20).status)

    assert status() == health_pb2.HealthCheckResponse.SERVING
    workers = until(lambda: server.workers)
    (sockets,) = server.directory.iterdir()
    elsewhere = sockets.rename(server.directory / "elsewhere")  # so that no other can take their place
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.CreateSession(pb.CreateSessionRequest(graph=bw.graph(loss=loss()).proto), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    elsewhere.rename(sockets)
    with bw.connect(server.address, retry=bw.Retry(seconds=60, first_contact=60)) as client:
        assert create(client).train_step({}).loss == 5.0, "the client waited for it"
    assert status() == health_pb2.HealthCheckResponse.SERVING


def test_calls_in_progress_are_drained(start: Any, until: Any, alive: Any) -> None:
    server = start()
    workers = until(lambda: server.workers)
    with bw.connect(server.address) as client:
        session = create(client)
        begun, finish = threading.Event(), threading.Event()

        def upload() -> Iterator[pb.SetParametersRequest]:
            yield pb.SetParametersRequest(session_id=session.id)
            begun.set()
            assert finish.wait(20)
            yield pb.SetParametersRequest(last=True)

        call = server.stub.SetParameters.future(upload(), timeout=20)
        assert begun.wait(20)
        assert session.train_step({}).loss == 5.0
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refused(server))
        finish.set()
        assert call.result().step == 1
    assert server.wait() == 0
    assert not [worker for worker in workers if alive(worker)]
    assert list(server.directory.iterdir()) == []


def refused(server: Any) -> bool:
    try:
        server.stub.ListSessions(pb.ListSessionsRequest(), timeout=20)
    except grpc.RpcError:
        return True
    return False


@pytest.mark.parametrize(
    ("signals", "status"), [([signal.SIGKILL], -signal.SIGKILL), ([signal.SIGTERM] * 2, 128 + signal.SIGTERM)]
)
def test_no_worker_outlives_the_front(start: Any, until: Any, alive: Any, signals: list[int], status: int) -> None:
    server, begun, over = start("--grace", "10m"), threading.Event(), threading.Event()
    workers = until(lambda: server.workers)
    with bw.connect(server.address) as client:
        session_id = create(client).id

    def upload() -> Iterator[pb.SetParametersRequest]:
        yield pb.SetParametersRequest(session_id=session_id)
        begun.set()
        over.wait(60)

    call = server.stub.SetParameters.future(upload(), timeout=60)
    assert begun.wait(20)
    for number in signals:
        server.process.send_signal(number)
        until(lambda: refused(server))
    assert server.wait() == status
    call.cancel()
    over.set()
    until(lambda: not [worker for worker in workers if alive(worker)])
    until(lambda: list(server.directory.glob("*/*")) == [])
