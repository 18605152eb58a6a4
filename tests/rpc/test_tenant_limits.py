"""What one tenant may have and do leaves the others theirs; the tokens file says how much, and is followed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.graphs import dot_graph
from tests.rpc.conftest import SGD, Refusal
from tests.rpc.test_tenants import Client, X, entry, token

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.access.tokens import read_tokens
from backwire_server.config_parts import Access, Capacity
from backwire_server.config_values import ConfigError
from backwire_server.rpc.server import Server
from backwire_server.sessions.limits import Limits, TenantLimits

Open = Callable[..., tuple[Client, Client]]

DEFAULTS = TenantLimits(tenant_max_sessions=2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text("\n".join([entry(1, "acme", "write"), entry(2, "umbrella", "write")]))
    path.chmod(0o600)
    return path


@pytest.fixture
def serve(file: Path) -> Iterator[Open]:
    """Starts a server that holds acme to limits of its own, and gives clients of acme and umbrella."""
    ends: list[Callable[[], object]] = []

    def start(limits: str) -> tuple[Client, Client]:
        file.write_text(f"{file.read_text()}\n[tenant.acme]\n{limits}\n")
        access = Access(tokens=str(file))
        server = Server("127.0.0.1:0", Limits(), Capacity(), access=access, tenants=DEFAULTS)
        clients = Client(server.address, token(1)), Client(server.address, token(2))
        ends.extend([*(client.channel.close for client in clients), lambda: server.stop(1.0)])
        return clients

    yield start
    for end in ends:
        end()


def train(client: Client, session: str) -> Any:
    return client.call("TrainStep", pb.TrainStepRequest(session_id=session, inputs=X))


def test_a_tenant_has_so_many_sessions_and_others_have_theirs(serve: Open) -> None:
    acme, umbrella = serve("max_sessions = 1")
    acme.create()
    told = acme.refused("CreateSession", pb.CreateSessionRequest(graph=dot_graph()))
    assert (told.reason, told.quota) == ("TOO_MANY_SESSIONS", "tenant_max_sessions")
    umbrella.create()
    umbrella.create()
    told = umbrella.refused("CreateSession", pb.CreateSessionRequest(graph=dot_graph()))
    assert told.quota == "tenant_max_sessions", "the default holds for who has no limit of its own"


def test_a_branch_takes_a_place_of_its_tenant(serve: Open) -> None:
    acme, _ = serve("max_sessions = 1")
    told = acme.refused("ForkSession", pb.ForkSessionRequest(session_id=acme.create()))
    assert told.quota == "tenant_max_sessions"


def test_sessions_of_a_tenant_hold_so_many_bytes_together(serve: Open) -> None:
    acme, umbrella = serve("max_bytes = 100")
    acme.create()
    told = acme.refused("CreateSession", pb.CreateSessionRequest(graph=dot_graph()))
    assert (told.reason, told.quota) == ("OUT_OF_MEMORY", "tenant_max_bytes")
    train(umbrella, umbrella.create())


def test_calls_beyond_the_rate_of_a_tenant_say_when_to_come(serve: Open) -> None:
    acme, umbrella = serve("calls_per_second = 1")
    session, other = acme.create(), umbrella.create()
    steps = 0
    while True:
        try:
            steps = train(acme, session).result.step
        except grpc.RpcError as error:
            told = Refusal(error)
            break
    assert (told.reason, told.quota) == ("OVERLOADED", "tenant_calls_per_second")
    for _ in range(20):
        train(umbrella, other)
    assert told.retry_after
    time.sleep(told.retry_after)
    assert train(acme, session).result.step == steps + 1


def test_requests_on_a_pipeline_count_as_calls(serve: Open) -> None:
    acme, _ = serve("bytes_per_second = 2000")
    step = pb.TrainStepRequest(session_id=acme.create(), inputs=X)
    answers = acme.pipeline(*(pb.PipelineRequest(id=number, train_step=step) for number in range(1, 100)))
    kinds = [answer.WhichOneof("kind") for answer in answers]
    assert kinds[0] == "train_step"
    assert kinds[-1] == "error"
    assert "tenant_bytes_per_second" in next(answer.error.message for answer in answers if answer.error.message)


def test_work_is_charged_before_it_is_done(serve: Open) -> None:
    acme, umbrella = serve("flops_per_second = 1")
    sized = [graph_pb2.Dimension(symbol="rows"), graph_pb2.Dimension(size=3)]
    x = graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=sized)
    request = pb.CreateSessionRequest(graph=dot_graph(inputs=[x]), optimizer=SGD)
    session = acme.call("CreateSession", request).session.session_id
    step = pb.TrainStepRequest(session_id=session, inputs={"x": tensors.encode(np.ones((1_000, 3)))})
    assert acme.call("TrainStep", step).result.step == 1, "the first may be larger than what a second has"
    told = acme.refused("TrainStep", step)
    assert (told.reason, told.quota) == ("OVERLOADED", "tenant_flops_per_second")
    assert told.retry_after is not None
    assert 1_000 < told.retry_after < 100_000, "a second for each operation"
    train(umbrella, umbrella.create())


def test_a_changed_file_is_followed(serve: Open, file: Path) -> None:
    acme, _ = serve("max_sessions = 1")
    acme.create()
    file.write_text(file.read_text().replace("max_sessions = 1", "max_sessions = 2"))
    deadline = time.monotonic() + 20
    while True:
        try:
            acme.create()
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tenant]\nacme = 3", "table of tables"),
        ("[tenant.Acme]", "name of tenant 1"),
        ("[tenant.acme]\nspeed = 3", "unknown; there are max_sessions"),
        ("[tenant.acme]\nmax_calls = 0", "max_calls of tenant acme is no whole number"),
        ("[tenant.acme]\nmax_calls = true", "max_calls of tenant acme is no whole number"),
    ],
)
def test_a_file_with_wrong_limits_is_told(file: Path, text: str, words: str) -> None:
    file.write_text(f"{file.read_text()}\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        read_tokens(file)
