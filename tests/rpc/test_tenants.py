"""Callers that are known by tokens: what they may do, and whose sessions they see."""

import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from tests.graphs import dot_graph
from tests.rpc.conftest import SGD, TIMEOUT, Refusal

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import gradient_service_pb2_grpc as pb_grpc
from backwire_server.config_parts import Access, Capacity
from backwire_server.rpc.server import Server
from backwire_server.sessions.limits import Limits

X = {"x": tensors.encode(np.asarray([1.0, -2.0, 4.0]))}


def token(number: int) -> str:
    return f"bw_{number:016x}_{'s' * 43}"


def entry(number: int, tenant: str, scope: str, text: str | None = None) -> str:
    digest = hashlib.sha256((text or token(number)).encode()).hexdigest()
    return (
        f'[[token]]\nid = "{number:016x}"\nname = "{tenant}-{scope}"\ntenant = "{tenant}"\nscope = "{scope}"\n'
        f'sha256 = "{digest}"\n'
    )


class Client:
    """Calls with one token, or none."""

    def __init__(self, address: str, bearer: str | None) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = pb_grpc.GradientServiceStub(self.channel)
        self.metadata = None if bearer is None else (("authorization", f"Bearer {bearer}"),)

    def call(self, method: str, request: Any) -> Any:
        return getattr(self.stub, method)(request, timeout=TIMEOUT, metadata=self.metadata)

    def refused(self, method: str, request: Any) -> Refusal:
        with pytest.raises(grpc.RpcError) as caught:
            self.exhaust(method, request)
        return Refusal(caught.value)

    def exhaust(self, method: str, request: Any) -> None:
        result = self.call(method, request)
        if hasattr(result, "__next__"):
            list(result)

    def create(self, request_id: str = "") -> str:
        request = pb.CreateSessionRequest(graph=dot_graph(), optimizer=SGD, request_id=request_id)
        found: str = self.call("CreateSession", request).session.session_id
        return found

    def listed(self) -> list[str]:
        return [each.session_id for each in self.call("ListSessions", pb.ListSessionsRequest()).sessions]

    def pipeline(self, *requests: pb.PipelineRequest) -> list[pb.PipelineResponse]:
        return list(self.stub.Pipeline(iter(requests), timeout=TIMEOUT, metadata=self.metadata))


Connect = Callable[[str | None], Client]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    entries = [entry(1, "acme", "write"), entry(2, "acme", "read"), entry(3, "umbrella", "write")]
    path.write_text("\n".join([*entries, entry(4, "default", "admin")]))
    path.chmod(0o600)
    return path


@pytest.fixture
def connect(file: Path) -> Iterator[Connect]:
    server = Server("127.0.0.1:0", Limits(), Capacity(), access=Access(tokens=str(file)))
    clients: list[Client] = []

    def one(bearer: str | None) -> Client:
        clients.append(Client(server.address, bearer))
        return clients[-1]

    yield one
    for client in clients:
        client.channel.close()
    server.stop(1.0)


@pytest.mark.parametrize("bearer", [None, "", "secret", token(9), token(1)[:-1] + "t", f"{token(1)} {token(1)}"])
def test_a_call_without_a_good_token_is_refused_and_does_nothing(connect: Connect, bearer: str | None) -> None:
    told = connect(bearer).refused("CreateSession", pb.CreateSessionRequest(graph=dot_graph()))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "s" * 43 not in told.message
    assert connect(token(4)).listed() == []


def test_every_method_needs_a_token(connect: Connect) -> None:
    nobody = connect(None)
    for method in pb.DESCRIPTOR.services_by_name["GradientService"].methods:
        request: Any = getattr(pb, f"{method.name}Request")()
        told = nobody.refused(method.name, iter([request]) if method.client_streaming else request)
        assert told.reason == "UNAUTHENTICATED", method.name


def test_sessions_belong_to_their_tenant_and_do_not_exist_for_others(connect: Connect) -> None:
    acme, umbrella, admin = connect(token(1)), connect(token(3)), connect(token(4))
    session, other = acme.create(), umbrella.create()
    requests = [
        ("GetSession", pb.GetSessionRequest(session_id=session)),
        ("Forward", pb.ForwardRequest(session_id=session, inputs=X)),
        ("TrainStep", pb.TrainStepRequest(session_id=session, inputs=X)),
        ("GetParameters", pb.GetParametersRequest(session_id=session)),
        ("SetParameters", iter([pb.SetParametersRequest(session_id=session)])),
        ("ExportSession", pb.ExportSessionRequest(session_id=session)),
        ("ForkSession", pb.ForkSessionRequest(session_id=session)),
        ("MoveSession", pb.MoveSessionRequest(session_id=session)),
        ("DeleteSession", pb.DeleteSessionRequest(session_id=session)),
    ]
    for method, request in requests:
        told = umbrella.refused(method, request)
        assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"), method
    (answer,) = umbrella.pipeline(pb.PipelineRequest(id=1, get_session=pb.GetSessionRequest(session_id=session)))
    assert answer.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert (acme.listed(), umbrella.listed(), admin.listed()) == ([session], [other], [session, other])
    assert acme.call("GetSession", pb.GetSessionRequest(session_id=session)).session.step == 0


def test_who_looks_on_sees_what_is_the_tenants_and_only_the_administrator_the_load(connect: Connect) -> None:
    acme, reader, umbrella, admin = (connect(token(number)) for number in (1, 2, 3, 4))
    session, other = acme.create(), umbrella.create()
    acme.call("TrainStep", pb.TrainStepRequest(session_id=session, inputs=X))
    own, foreign, all_ = (each.call("GetStatus", pb.GetStatusRequest()) for each in (reader, umbrella, admin))
    assert [(each.session_id, each.tenant, each.steps) for each in own.sessions] == [(session, "acme", 1)]
    assert [each.session_id for each in foreign.sessions] == [other]
    assert {each.session_id for each in all_.sessions} == {session, other}
    assert (own.session_count, foreign.session_count, all_.session_count) == (1, 1, 2)
    assert own.session_bytes + foreign.session_bytes == all_.session_bytes == all_.load.session_bytes.used
    assert [each.HasField("load") for each in (own, foreign, all_)] == [False, False, True]
    request = pb.GetSessionHistoryRequest(session_id=session)
    assert len(reader.call("GetSessionHistory", request).steps) == 1
    assert umbrella.refused("GetSessionHistory", request).reason == "SESSION_NOT_FOUND"


def test_a_foreign_session_is_told_in_the_words_of_one_that_never_was(connect: Connect) -> None:
    acme, umbrella = connect(token(1)), connect(token(3))
    session = acme.create()
    never = session[:-8] + "abc.acme"
    messages = [
        umbrella.refused("GetSession", pb.GetSessionRequest(session_id=each)).message.replace(each, "")
        for each in (session, never)
    ]
    assert messages[0] == messages[1]


def test_a_branch_of_the_administrator_stays_with_its_tenant(connect: Connect) -> None:
    acme, admin = connect(token(1)), connect(token(4))
    session = acme.create()
    branch = admin.call("ForkSession", pb.ForkSessionRequest(session_id=session)).session.session_id
    assert acme.listed() == [session, branch]


def test_each_tenant_has_request_ids_of_its_own(connect: Connect) -> None:
    acme, umbrella = connect(token(1)), connect(token(3))
    session = acme.create("once")
    assert acme.create("once") == session
    assert umbrella.create("once") != session
    assert len(umbrella.listed()) == len(acme.listed()) == 1


def test_a_reader_evaluates_and_changes_nothing(connect: Connect) -> None:
    writer, reader = connect(token(1)), connect(token(2))
    session = writer.create()
    answer = reader.call("Forward", pb.ForwardRequest(session_id=session, inputs=X, mode=pb.MODE_EVAL))
    assert answer.outputs
    for method, request in (
        ("Forward", pb.ForwardRequest(session_id=session, inputs=X, mode=pb.MODE_TRAIN)),
        ("TrainStep", pb.TrainStepRequest(session_id=session, inputs=X)),
        ("DeleteSession", pb.DeleteSessionRequest(session_id=session)),
        ("CreateSession", pb.CreateSessionRequest(graph=dot_graph())),
    ):
        told = reader.refused(method, request)
        assert (told.code, told.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), method
    answers = reader.pipeline(
        pb.PipelineRequest(id=1, forward=pb.ForwardRequest(session_id=session, inputs=X, mode=pb.MODE_EVAL)),
        pb.PipelineRequest(id=2, train_step=pb.TrainStepRequest(session_id=session, inputs=X)),
        pb.PipelineRequest(id=3, get_session=pb.GetSessionRequest(session_id=session)),
    )
    assert [each.error.code for each in answers] == [0, grpc.StatusCode.PERMISSION_DENIED.value[0], 0]
    assert answers[2].get_session.session.step == 0


def test_tokens_come_and_go_while_the_server_runs(connect: Connect, file: Path, until: Any) -> None:
    old, new = connect(token(1)), connect(token(7))
    session = old.create()
    new.refused("ListSessions", pb.ListSessionsRequest())
    file.write_text(entry(7, "acme", "write"))

    def rotated() -> bool:
        try:
            return new.listed() == [session]
        except grpc.RpcError:
            time.sleep(0.05)
            return False

    until(rotated)
    assert old.refused("ListSessions", pb.ListSessionsRequest()).reason == "UNAUTHENTICATED"


def test_the_log_names_the_caller_and_never_the_token(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = connect(token(1))
    client.create()
    connect(token(9)).refused("ListSessions", pb.ListSessionsRequest())
    seen = [record.__dict__.get("data", {}) for record in caplog.records if record.name == "backwire.access"]
    assert {"caller": "acme-write", "tenant": "acme"}.items() <= seen[0].items()
    assert {"caller": "", "tenant": ""}.items() <= seen[-1].items(), "it is nobody's until the token is known"
    assert "s" * 43 not in "".join(f"{record.getMessage()}{record.__dict__}" for record in caplog.records)


def test_a_pipeline_outlives_its_token_by_a_second(connect: Connect, file: Path) -> None:
    acme = connect(token(1))
    step = pb.TrainStepRequest(session_id=acme.create(), inputs=X)
    requests: SimpleQueue[pb.PipelineRequest | None] = SimpleQueue()
    answers = acme.stub.Pipeline(iter(requests.get, None), timeout=TIMEOUT, metadata=acme.metadata)
    requests.put(pb.PipelineRequest(id=1, train_step=step))
    assert next(answers).train_step.result.step == 1
    file.write_text(entry(7, "acme", "write"))
    for number in itertools.count(2):
        requests.put(pb.PipelineRequest(id=number, train_step=step))
        answer = next(answers)
        if answer.WhichOneof("kind") == "error":
            break
        time.sleep(0.05)
    assert answer.error.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    requests.put(None)
