"""Calls that wait until a silent server gives a sign or is dead leave places for others."""

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import LONGER, TIMEOUT, Api
from tests.rpc.replicas.serving import LEASE, SOME, Until, X, started

from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Capacity, Keeping
from backwire_server.rpc.admission import CALLS
from backwire_server.rpc.server import Server
from backwire_server.sessions.info import Home
from backwire_server.storage.sharing import membership

ENOUGH = 100
"""How often a server is looked at, each twentieth of a second, in far longer than a call may take."""

MOVE = pb.MoveSessionRequest(replica="b")


def named(request: Any) -> str:
    return type(request).__name__.removesuffix("Request")


def test_those_who_wait_for_a_silent_server_leave_half_of_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until, refused: Any
) -> None:
    over = threading.Event()
    looks = []

    def is_late(*_: object) -> bool:
        looks.append(1)
        return not over.is_set()

    monkeypatch.setattr(membership, "LOOKS", LEASE * 200)
    monkeypatch.setattr(membership.Membership, "_is_late", is_late)
    owner = Api(started(tmp_path, "a"))
    keeping = Keeping(str(tmp_path), shared=True, lease=LEASE)
    other = Api(Server("127.0.0.1:0", SOME, Capacity(max_concurrent_lookups=3), Home(replica="b"), keeping))
    first, second = (pb.GetSessionRequest(session_id=owner.create()) for _ in range(2))
    terms: dict[str, Any] = {"timeout": TIMEOUT, "metadata": ((FOLLOWS_KEY, "1"),)}
    waiting = other.stub.GetSession.future(first, **terms)
    until(lambda: len(looks) > 1)
    assert refused(lambda: other.stub.GetSession(second, **terms)).reason == "WRONG_REPLICA"
    assert not waiting.done()
    over.set()
    with pytest.raises(grpc.RpcError, match="is with the replica 'a'"):
        waiting.result()
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


@pytest.mark.parametrize("asked", [pb.TrainStepRequest(inputs=X), pb.DeleteSessionRequest(), MOVE], ids=named)
def test_a_call_that_waits_for_a_silent_server_ends_by_its_deadline_and_gives_its_place_back(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch, until: Until, asked: Any
) -> None:
    owner, other = replicas
    asked.session_id, looks = owner.create(), []

    def is_late(*_: object) -> bool:
        looks.append(1)
        return len(looks) < ENOUGH

    monkeypatch.setattr(membership.Membership, "_is_late", is_late)
    for seconds in LONGER:
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            getattr(other.stub, named(asked))(asked, timeout=seconds, metadata=((FOLLOWS_KEY, "1"),))
        if len(looks) > 1:
            break
    until(lambda: not other.server.admission.usage(CALLS)[0])
    assert 1 < len(looks) < ENOUGH
