"""When servers have lanes between them, on which ports, and what ends them."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X, lane_port, lanes_between, open_lane, started

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas.lanes import Lanes
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.training import trainer


def test_a_lane_that_the_owner_has_closed_is_not_used(tmp_path: Path, until: Until) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    found = open_lane(other, owner, until)
    session = owner.create()
    assert owner.server._neighbours.lanes is not None
    owner.server._neighbours.lanes.close()
    until(lambda: not found._idle[0].stands)
    assert other.train(session).result.step == 1
    assert not found._idle
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


def test_calls_go_by_grpc_where_no_lane_can_be_opened(tmp_path: Path, until: Until) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    assert owner.server._neighbours.lanes is not None
    owner.server._neighbours.lanes.close()
    session = owner.create()
    for step in range(1, 4):
        assert other.train(session).result.step == step
    found = lanes_between(other, owner)
    assert found is not None
    until(lambda: found._retry)
    assert other.train(session).result.step == 4
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


def test_lanes_are_on_the_port_that_was_asked_for_or_there_is_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot have lanes on port {port} .*; choose another --lane-port"):
            started(tmp_path, "a", lane_port=port)
    server = started(tmp_path, "a", lane_port=port)
    assert server._neighbours.lanes is not None
    assert server._neighbours.lanes.told == str(port)
    server.stop(5.0)


@pytest.mark.parametrize("without", ["a", "b"])
def test_a_server_without_lanes_listens_for_none_and_opens_none(tmp_path: Path, without: str) -> None:
    owner, other = (Api(started(tmp_path, name, lanes=name != without)) for name in "ab")
    session = owner.create()
    for step in range(1, 4):
        assert other.train(session).result.step == step
    assert (owner.server._neighbours.lanes is None) == (without == "a")
    found = lanes_between(other, owner)
    assert found is None if without == "b" else found is not None and not found._told
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


def test_a_server_that_shuts_down_ends_its_lanes(tmp_path: Path, until: Until) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    found = open_lane(other, owner, until)
    assert owner.server._neighbours.lanes is not None
    port = lane_port(owner)
    assert owner.server.stop(5.0)
    until(lambda: not found._idle[0].stands)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    other.channel.close()
    other.server.stop(5.0)


def test_a_server_that_waits_no_longer_ends_the_calls_on_its_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until, refused: Any
) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    open_lane(other, owner, until)
    held = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, held.train)
    call = other.stub.TrainStep.future(pb.TrainStepRequest(session_id=owner.create(), inputs=X), timeout=2 * TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    assert not owner.server.stop(0.1)
    assert held.stopped.wait(TIMEOUT), "before its deadline"
    assert refused(call.result).reason == "NO_WORKER"
    other.channel.close()
    other.server.stop(5.0)


def test_a_call_goes_by_grpc_where_there_is_no_thread_to_open_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    found = Lanes("127.0.0.1:1", b"secret")
    found.learn("1")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert found.take() is None
    assert not found._opening
    assert found._retry > 0, "and is not tried at once again"
