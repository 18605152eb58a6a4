"""Calls for a session of another server are passed on over lanes, where there are some, and are the same calls."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import SOME, Held, Until, X, lane_port, lane_to, lanes_between, open_lane, started

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas import lane_frames, lane_server, lanes
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.lanes import LANES_KEY, Lanes
from backwire_server.rpc.replicas.passing import Passing
from backwire_server.sessions import trainer
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.limits import Limits

OWNERS_BYTES = 4 << 20


@pytest.fixture
def replicas(tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Api, Api]]:
    """Clients of two servers, of which the second passes unary calls on by a lane, or not at all."""
    owner = Api(started(tmp_path, "a", limits=Limits(max_message_bytes=OWNERS_BYTES)))
    other = Api(started(tmp_path, "b", limits=SOME))
    open_lane(other, owner, until)
    monkeypatch.setattr(Passing, "by_grpc", None)
    yield owner, other
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, until: Until) -> Held:
    found = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, found.train)
    return found


def test_unary_calls_go_by_a_lane_one_after_another(replicas: tuple[Api, Api]) -> None:
    owner, other = replicas
    session = owner.create()
    for step in range(1, 6):
        assert other.train(session).result.step == step
    forward = other.forward(session)
    other.backward(session, forward.forward_id)
    assert other.step(session).step == 6
    assert owner.info(session).step == 6


def test_an_error_leaves_the_lane_to_the_next_call(replicas: tuple[Api, Api], refused: Any) -> None:
    owner, other = replicas
    session = owner.create()
    request = pb.BackwardRequest(session_id=session, forward_id="f")
    told = [refused(lambda api=api: api.stub.Backward(request, timeout=TIMEOUT)) for api in (owner, other)]
    assert told[0].reason == "PASS_NOT_FOUND"
    assert vars(told[0]) == vars(told[1])
    assert other.train(session).result.step == 1


def test_a_message_that_the_owner_does_not_take_is_refused_and_the_next_call_goes_on(
    replicas: tuple[Api, Api], refused: Any
) -> None:
    owner, other = replicas
    session, x = owner.create(), np.zeros(OWNERS_BYTES // 8)
    told = refused(lambda: other.train(session, x))
    assert (told.code, told.quota) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "max_message_bytes")
    assert other.train(session).result.step == 1


def test_a_large_message_goes_in_many_parts(replicas: tuple[Api, Api], refused: Any) -> None:
    owner, other = replicas
    session, names = owner.create(), ["n" * 100] * 30_000
    told = [refused(lambda api=api: api.backward(session, "f", wrt=names)) for api in (owner, other)]
    assert told[0].reason == told[1].reason == "PASS_NOT_FOUND"


def test_a_client_is_told_where_the_time_went_and_nothing_of_lanes(replicas: tuple[Api, Api]) -> None:
    owner, other = replicas
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    _, call = other.stub.TrainStep.with_call(request, timeout=TIMEOUT)
    told = dict(call.trailing_metadata())
    assert "compute" in told["server-timing"]
    assert LANES_KEY not in told


def test_a_call_on_a_lane_is_counted_once_it_was_answered(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    owner, other = replicas
    session, counts, send = owner.create(), [], lane_frames.send

    def counted() -> int:
        return owner.server.metrics.exposition().count(b'backwire_calls_total{code="OK",method="Forward"')

    def look(*told: Any) -> None:
        counts.append(counted())
        send(*told)

    monkeypatch.setattr(lane_frames, "send", look)
    other.forward(session)
    assert counts == [0, 0], "the request, and its answer"
    until(counted)


def test_a_call_on_a_lane_that_is_cancelled_is_not_computed_on(replicas: tuple[Api, Api], held: Held) -> None:
    owner, other = replicas
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    call = other.stub.TrainStep.future(request, timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    call.cancel()
    assert held.stopped.wait(TIMEOUT)


@pytest.mark.parametrize("heir", ["", "127.0.0.1:9"])
def test_a_call_on_a_lane_ends_when_the_server_lives_no_more_or_another_has_the_session(
    replicas: tuple[Api, Api], refused: Any, held: Held, monkeypatch: pytest.MonkeyPatch, heir: str
) -> None:
    owner, other = replicas
    session = owner.create()
    monkeypatch.setattr(lanes, "LOOK_SECONDS", 0.05)
    found = lanes_between(other, owner)
    assert found is not None
    found._idle.pop().close()
    found.give(lane_to(owner))
    answers = iter([owner.server.address, owner.server.address])  # that it lives, twice, and then not any more
    monkeypatch.setattr(other.server._forwarder, "_elsewhere", lambda *_: next(answers, heir))
    told = refused(lambda: other.train(session))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert held.stopped.wait(TIMEOUT), "the owner notices that nobody waits"


def test_an_owner_that_ends_while_it_computes_is_told_as_a_reason_to_call_again(
    replicas: tuple[Api, Api], refused: Any, held: Held
) -> None:
    owner, other = replicas
    call = other.stub.TrainStep.future(pb.TrainStepRequest(session_id=owner.create(), inputs=X), timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    assert owner.server._lanes is not None
    owner.server._lanes.close()
    told = refused(call.result)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    held.stopped.set()  # or its end would wait for what it computes


def test_a_lane_that_the_owner_has_closed_is_not_used(tmp_path: Path, until: Until) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    found = open_lane(other, owner, until)
    session = owner.create()
    assert owner.server._lanes is not None
    owner.server._lanes.close()
    until(lambda: not found._idle[0].stands)
    assert other.train(session).result.step == 1
    assert not found._idle
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


def test_calls_go_by_grpc_where_no_lane_can_be_opened(tmp_path: Path, until: Until) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    assert owner.server._lanes is not None
    owner.server._lanes.close()
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


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("ffffffff") + bytes(8),  # a head of 4 GiB
        bytes.fromhex("01000000") + bytes(8) + b"[",
        bytes.fromhex("02000000") + bytes(8) + b"{}",
        bytes.fromhex("02000000") + bytes(8) + b"[]",
    ],
)
def test_what_makes_no_sense_on_a_lane_ends_it_alone(replicas: tuple[Api, Api], data: bytes) -> None:
    owner, other = replicas
    lane = lane_to(owner)
    lane._connection.sendall(data)
    lane._connection.settimeout(TIMEOUT)
    assert lane._connection.recv(1) == b""
    lane.close()
    assert other.train(owner.create()).result.step == 1


def test_there_are_no_more_lanes_than_the_owner_has_threads_for(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = replicas
    monkeypatch.setattr(lane_server, "MOST_LANES", 2)
    second = lane_to(owner)
    with pytest.raises((LaneBroken, OSError)):
        lane_to(owner)
    second.close()
    assert other.train(owner.create()).result.step == 1


def test_lanes_that_no_call_used_for_long_are_closed(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = replicas
    found = lanes_between(other, owner)
    assert found is not None
    found.give(lane_to(owner))
    session = owner.create()
    other.train(session)
    assert len(found._idle) == 2
    monkeypatch.setattr(lanes, "SPARE_SECONDS", 0.0)
    other.train(session)
    assert len(found._idle) == 1


def test_lanes_are_on_the_port_that_was_asked_for_or_there_is_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot have lanes on port {port} .*; choose another --lane-port"):
            started(tmp_path, "a", lane_port=port)
    server = started(tmp_path, "a", lane_port=port)
    assert server._lanes is not None
    assert server._lanes.told == str(port)
    server.stop(5.0)


@pytest.mark.parametrize("without", ["a", "b"])
def test_a_server_without_lanes_listens_for_none_and_opens_none(tmp_path: Path, without: str) -> None:
    owner, other = (Api(started(tmp_path, name, lanes=name != without)) for name in "ab")
    session = owner.create()
    for step in range(1, 4):
        assert other.train(session).result.step == step
    assert (owner.server._lanes is None) == (without == "a")
    found = lanes_between(other, owner)
    assert found is None if without == "b" else found is not None and not found._told
    for api in (owner, other):
        api.channel.close()
        api.server.stop(5.0)


def test_a_server_that_shuts_down_ends_its_lanes(tmp_path: Path, until: Until) -> None:
    owner, other = Api(started(tmp_path, "a")), Api(started(tmp_path, "b"))
    found = open_lane(other, owner, until)
    assert owner.server._lanes is not None
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
