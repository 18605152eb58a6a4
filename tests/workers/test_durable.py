"""Durable sessions are spread over the workers, and outlive them, the front, and a change of their number."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb

TIMEOUT = 30.0
STEPS = 40
LONG = 2_000
"""So many mutations take a while to be done again: some fifty times as long as to ask whether they are."""

PATIENT = 180.0
"""What a busy machine is given at most to start a worker and do them again."""

Start = Callable[..., Any]
Status = health_pb2.HealthCheckResponse.ServingStatus


def graph() -> bw.Graph:
    """A network with Dropout, so that a step that is done twice or left out shows."""
    x = bw.input("x", ("batch", 4))
    return bw.graph(loss=bw.mean(bw.dropout(bw.tanh(bw.dense(x, 3, name="dense"))) ** 2))


def create(client: bw.Client, request_id: str | None = None, **how: Any) -> bw.Session:
    return client.create_session(graph(), optimizer=bw.SGD(0.1, momentum=0.9), seed=5, request_id=request_id, **how)


def batches(count: int = STEPS) -> Iterator[dict[str, Any]]:
    draw = np.random.default_rng(0)
    for _ in range(count):
        yield {"x": draw.normal(size=(2, 4)).astype("f4")}


def undisturbed(client: bw.Client) -> tuple[list[float], str]:
    """All losses of a session that trains without a break, and the digest at its end."""
    session = create(client, durability="memory")
    losses = [session.train_step(batch).loss for batch in batches()]
    return losses, session.digest()


def connect(server: Any, **how: Any) -> bw.Client:
    return bw.connect(server.address, timeout=TIMEOUT, **how)


def pair(client: bw.Client) -> list[bw.Session]:
    """Sessions of both workers."""
    made: dict[str, bw.Session] = {}
    while len(made) < 2:
        session = create(client)
        made[session.info().address] = session
    return list(made.values())


def killer(server: Any, session: bw.Session, until: Any) -> Callable[[], None]:
    """Kills the worker that has a session, whichever that is by then."""

    def kill() -> None:
        until(lambda: len(server.workers) == 2)
        os.kill(server.worker_of(session), signal.SIGKILL)

    return kill


def stop(server: Any) -> None:
    server.process.terminate()
    assert server.wait() == 0, "".join(server.errors)


def test_a_worker_that_is_killed_comes_back_with_its_sessions_and_the_others_go_on(
    start: Start, tmp_path: Path, until: Any
) -> None:
    server = start("--data-dir", str(tmp_path))
    with connect(server) as client:
        losses, digest = undisturbed(client)
        sessions = pair(client)
        lost = create(client, durability="memory")
        while lost.info().address != sessions[0].info().address:
            lost = create(client, durability="memory")
        told: list[list[float]] = [[], []]
        kill = killer(server, sessions[0], until)
        for number, batch in enumerate(batches()):
            if number in (0, 13, 27):
                kill()
            for session, found in zip(sessions, told, strict=True):
                found.append(session.train_step(batch).loss)
        assert told == [losses, losses]
        assert [session.digest() for session in sessions] == [digest, digest]
        assert {each.id for each in client.sessions()} >= {session.id for session in sessions}
        with pytest.raises(bw.SessionLostError):
            lost.info()


@pytest.mark.parametrize("way", ["calls", "a pipeline"])
def test_training_rides_through_workers_that_are_killed_while_they_work(
    start: Start, tmp_path: Path, until: Any, way: str
) -> None:
    server = start("--data-dir", str(tmp_path))
    with connect(server) as client:
        losses, digest = undisturbed(client)
        session = create(client)
        kill = killer(server, session, until)
        told: list[float] = []
        halts = {10: threading.Event(), 25: threading.Event()}

        def killing() -> None:
            for halt in halts.values():
                assert halt.wait(TIMEOUT)
                kill()

        def note(loss: float) -> None:
            told.append(loss)
            if len(told) in halts:
                halts[len(told)].set()

        other = threading.Thread(target=killing)
        other.start()
        if way == "calls":
            for batch in batches():
                note(session.train_step(batch).loss)
        else:
            for result in session.train_steps(batches(), depth=4):
                note(result.loss)
        other.join(TIMEOUT)
        assert told == losses
        assert (session.info().step, session.digest()) == (STEPS, digest)


def test_while_a_worker_recovers_its_sessions_health_and_calls_say_so(start: Start, tmp_path: Path, until: Any) -> None:
    server = start("--data-dir", str(tmp_path))
    health, asked = health_pb2_grpc.HealthStub(server.channel), health_pb2.HealthCheckRequest()
    with connect(server) as client:
        session = create(client)
        for _ in session.train_steps(batches(LONG), depth=32):
            pass
        digest, kill = session.digest(), killer(server, session, until)
        request, reasons = pb.GetSessionRequest(session_id=session.id, digest=True), list[str]()

        def answer() -> Any:
            try:
                return server.stub.GetSession(request, timeout=TIMEOUT)
            except grpc.RpcError as error:
                reasons.append(reason_of(error))
                return None

        def was_asked_meanwhile() -> bool:
            """Kills the worker; tells whether a call came before the next had done the mutations again."""
            until(lambda: health.Check(asked, timeout=TIMEOUT).status == Status.Value("SERVING"))
            watch = health.Watch(asked, timeout=PATIENT)
            statuses = (Status.Name(response.status) for response in watch)
            assert next(statuses) == "SERVING"
            reasons.clear()
            kill()
            assert until(answer, PATIENT).digest == digest
            assert {*reasons} <= {"NO_WORKER", "RECOVERING"}
            if found := "RECOVERING" in reasons:
                assert reasons[-1] == "RECOVERING"
                assert [next(statuses), next(statuses)] == ["NOT_SERVING", "SERVING"]
            watch.cancel()
            return found

        until(was_asked_meanwhile, PATIENT)  # which no call is while this process stands still


def reason_of(error: Any) -> str:
    info, status = error_details_pb2.ErrorInfo(), rpc_status.from_call(error)
    assert status is not None, error
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def test_what_requests_made_and_deleted_is_found_with_any_number_of_workers(start: Start, tmp_path: Path) -> None:
    names = [f"request {number}" for number in range(6)]
    flags = ("--data-dir", str(tmp_path))
    server = start(*flags)
    with connect(server) as client:
        made = [create(client, name) for name in names]
        plain = [create(client) for _ in range(4)]
        for session in (*made, *plain):
            session.train_step(next(batches(1)))
        made[0].export(tmp_path / "file")
        branches = [session.fork(request_id=f"branch of {session.id}") for session in made]
        imported = client.import_session(tmp_path / "file", request_id="import")
        [digest] = {each.digest() for each in (*made, *plain, *branches, imported)}
        for number, session in enumerate(made[4:]):
            close(server, session.id, f"delete {number}")
        ids = [each.id for each in made]
        kept = {each.id for each in (*made[:4], *plain, *branches, imported)}
    for count in (3, 1, 2):
        stop(server)
        server = start(*flags, "--workers", str(count))
        with connect(server) as client:
            assert {each.id for each in client.sessions()} == kept
            assert [create(client, name).id for name in names[:4]] == ids[:4]
            for session, before in zip(made[:4], branches, strict=False):
                again = client.session(session.id).fork(request_id=f"branch of {session.id}")
                assert again.id == before.id
            assert client.import_session(tmp_path / "file", request_id="import").id == imported.id
            for number, session_id in enumerate(ids[4:]):
                close(server, session_id, f"delete {number}")
                with pytest.raises(grpc.RpcError) as caught:
                    close(server, session_id, "another")
                assert reason_of(caught.value) == "SESSION_NOT_FOUND"
            assert {each.id for each in client.sessions()} == kept
            assert {client.session(each).digest() for each in kept} == {digest}


def close(server: Any, session_id: str, request_id: str) -> None:
    request = pb.DeleteSessionRequest(session_id=session_id, request_id=request_id)
    server.stub.DeleteSession(request, timeout=TIMEOUT)
