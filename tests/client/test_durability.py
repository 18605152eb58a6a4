"""Leases, checkpoints, branches and files against a test double: what is sent, and what comes back."""

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import backwire as bw
from backwire_api.file_stream import CHUNK_BYTES
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService

X: dict[str, Any] = {"x": [[1.0, 2.0]], "labels": [0]}


def mutate(session: bw.Session) -> None:
    """Sends every kind of mutation that a session has, alone and in a pipeline."""
    forward = session.forward(X)
    forward.backward()
    session.step()
    session.train_step(X)
    session.set_parameters({"b": [1.0, 2.0]})
    session.zero_gradients()
    session.rewind(0)
    with session.pipeline() as pipe:
        pipe.backward(pipe.forward(X))
        pipe.step()
        pipe.train_step(X)
        pipe.zero_gradients()
    list(session.train_steps([X, X]))


def test_a_session_has_the_durability_that_was_asked_for(client: bw.Client, service: "FakeService") -> None:
    loss = bw.squared_error(bw.parameter("p", 1.0), 2.0)
    assert client.create_session(loss).info().durability == "journal"
    assert client.create_session(loss, durability="fsync").info().durability == "fsync"
    assert client.create_session(loss, durability="memory").info().durability == "memory"
    assert [each.durability for each in service.requests["CreateSession"]] == [0, 3, 1]
    with pytest.raises(bw.InvalidRequestError, match="'memory', 'journal', 'fsync'") as caught:
        client.create_session(loss, durability="disk")  # type: ignore[arg-type]
    assert caught.value.field == "durability"


def test_all_mutations_carry_the_lease_while_it_is_held(session: bw.Session, service: "FakeService") -> None:
    with session.attach(holder="me", lease_timeout=7.5) as lease:
        assert (lease.number, lease.holder, lease.timeout) == (1, "me", 7.5)
        assert session.info().lease == bw.LeaseInfo(1, "me", timedelta(seconds=7.5))
        mutate(session)
        session.forward(X, mode="eval")
    assert session.info().lease is None
    kinds = ("Forward", "Backward", "Step", "TrainStep", "SetParameters", "ZeroGradients", "RestoreCheckpoint")
    for kind in kinds:
        sent = [each.lease for each in service.requests[kind] if getattr(each, "mode", 0) != service_pb2.MODE_EVAL]
        assert sent, kind
        assert set(sent) == {1}, kind
    service.requests.clear()
    mutate(session)
    assert {each.lease for kind in kinds for each in service.requests[kind]} == {0}


def test_the_writer_before_is_told_who_took_over(client: bw.Client, session: bw.Session) -> None:
    other = client.session(session.id)
    with session.attach(holder="first"):
        with pytest.raises(bw.LeaseHeldError) as held:
            other.attach(holder="second")
        assert held.value.retry_after == 12.5
        with pytest.raises(bw.WriterFencedError, match="held by first"):
            other.step()
        taken = other.attach(holder="second", take_over=True)
        with pytest.raises(bw.WriterFencedError, match="held by second"):
            session.step()
        assert other.step().step == 1
    assert other.info().lease is not None, "the lease that was taken over is not given back by its former holder"
    taken.release()
    taken.release()
    assert other.info().lease is None


def test_a_lease_names_this_process_and_needs_time(session: bw.Session, service: "FakeService") -> None:
    with session.attach():
        pass
    (request,) = service.requests["AttachSession"]
    assert request.holder.endswith(f":{os.getpid()}")
    assert request.timeout.seconds == 30
    assert not request.take_over
    with pytest.raises(bw.InvalidRequestError, match="runs out at once"):
        session.attach(lease_timeout=0)


def test_an_error_in_the_block_is_not_hidden_by_one_of_the_release(
    session: bw.Session, service: "FakeService", refuse: Any
) -> None:
    service.before["DetachSession"] = [refuse(grpc.StatusCode.INTERNAL)] * 2
    with pytest.raises(KeyError, match="mine"), session.attach():
        raise KeyError("mine")
    with pytest.raises(bw.ServerError), session.attach(take_over=True):
        pass


def test_a_step_can_wait_for_contributions_and_tell_the_digest(session: bw.Session, service: "FakeService") -> None:
    assert session.step(after_contributions=8, digest=True).digest == f"{1:064x}"
    assert session.step().digest == ""
    assert session.train_step(X, digest=True).digest == f"{3:064x}"
    assert session.digest() == f"{3:064x}"
    with session.pipeline() as pipe:
        told = pipe.step(after_contributions=2, digest=True)
        assert told.result().digest == f"{4:064x}"
        assert pipe.train_step(X, digest=True).result().digest == f"{5:064x}"
    assert [each.options.after_contributions for each in service.requests["Step"]] == [8, 0, 2]
    with pytest.raises(bw.InvalidRequestError, match="use 0 or more"):
        session.step(after_contributions=-1)


def test_checkpoints_are_saved_listed_restored_and_deleted(session: bw.Session, service: "FakeService") -> None:
    session.step()
    saved = session.save_checkpoint("best")
    assert saved == bw.CheckpointInfo("best", 1, "ab" * 32, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), 1_000)
    session.step()
    with session.pipeline() as pipe:
        assert pipe.save_checkpoint("later").result().step == 2
    assert [each.name for each in session.checkpoints()] == ["best", "later"]
    assert session.restore_checkpoint("best") == saved
    assert session.info().step == 1
    assert session.rewind(0).step == 0
    session.delete_checkpoint("best")
    with pytest.raises(bw.CheckpointNotFoundError):
        session.delete_checkpoint("best")
    sent = [each.WhichOneof("target") for each in service.requests["RestoreCheckpoint"]]
    assert sent == ["name", "step"]


@pytest.mark.parametrize("rpc", ["AttachSession", "SaveCheckpoint", "ForkSession", "ImportSession"])
def test_a_lost_answer_is_asked_for_again_under_the_same_request_id(
    rpc: str, client: bw.Client, session: bw.Session, service: "FakeService", refuse: Any
) -> None:
    service.after[rpc] = [refuse(grpc.StatusCode.UNAVAILABLE)]
    count = len(service.sessions)
    if rpc == "AttachSession":
        assert session.attach().number == 1
    elif rpc == "SaveCheckpoint":
        session.save_checkpoint("one")
    elif rpc == "ForkSession":
        session.fork()
    else:
        client.import_session(io.BytesIO(b"a session"))
    first, second = service.requests[rpc]
    assert first.request_id == second.request_id != ""
    assert len(service.sessions) - count == (rpc in ("ForkSession", "ImportSession"))


def test_a_fork_is_another_session_of_the_same_graph(session: bw.Session) -> None:
    branch = session.fork()
    assert branch.id != session.id
    assert branch.graph is session.graph
    assert branch.train_step(X).step == 1
    assert session.info().step == 0


def test_a_fork_of_the_writer_has_no_lease(session: bw.Session, service: "FakeService") -> None:
    with session.attach():
        session.fork().step()
    assert service.requests["Step"][0].lease == 0


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_a_file_is_what_the_session_exports(
    size: int, client: bw.Client, session: bw.Session, service: "FakeService", tmp_path: Path
) -> None:
    service.file = os.urandom(size)
    expected, path = service.file, tmp_path / "session.safetensors"
    session.export(path)
    assert path.read_bytes() == expected
    opened = io.BytesIO(b"before")
    opened.seek(6)
    session.export(opened)
    assert opened.getvalue() == b"before" + expected
    service.file = b""
    opened.seek(6)
    client.import_session(opened, durability="fsync")
    assert service.file == expected
    assert service.requests["ImportSession"][0].durability == service_pb2.DURABILITY_FSYNC
    client.load(path)
    assert service.file == expected
    session.save(path)
    assert os.listdir(tmp_path) == ["session.safetensors"]


def test_a_broken_export_begins_anew(session: bw.Session, service: "FakeService", refuse: Any, tmp_path: Path) -> None:
    service.cuts = [refuse(grpc.StatusCode.UNAVAILABLE)]
    service.file = os.urandom(3 * CHUNK_BYTES)
    session.export(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == service.file
    assert len(service.requests["ExportSession"]) == 2


def test_a_failed_export_leaves_the_file_that_was_there(
    session: bw.Session, service: "FakeService", refuse: Any, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"the one before")
    service.before["ExportSession"] = [refuse(grpc.StatusCode.DATA_LOSS, reason="SESSION_QUARANTINED")]
    with pytest.raises(bw.SessionQuarantinedError):
        session.save(path)
    assert path.read_bytes() == b"the one before"
    assert os.listdir(tmp_path) == ["file"]


def test_files_must_be_there_and_able_to_seek(client: bw.Client, session: bw.Session, tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(read, "rb") as source, open(write, "wb") as sink:
        with pytest.raises(bw.InvalidRequestError, match="cannot seek"):
            client.import_session(source)
        with pytest.raises(bw.InvalidRequestError, match="cannot seek"):
            session.export(sink)
    with pytest.raises(FileNotFoundError):
        client.load(tmp_path / "nothing")
