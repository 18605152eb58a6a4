"""Calls for a session of another server are passed on over lanes, where there are some, and are the same calls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import SOME, Held, Until, X, lane_to, lanes_between, open_lane, started

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas import lane_frames, lane_server, lanes
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.lanes import LANES_KEY
from backwire_server.rpc.replicas.passing import Passing
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.training import trainer

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
    monkeypatch.setattr(other.server._neighbours.forwarder, "_elsewhere", lambda *_: next(answers, heir))
    told = refused(lambda: other.train(session))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert held.stopped.wait(TIMEOUT), "the owner notices that nobody waits"


def test_an_owner_that_ends_while_it_computes_is_told_as_a_reason_to_call_again(
    replicas: tuple[Api, Api], refused: Any, held: Held
) -> None:
    owner, other = replicas
    call = other.stub.TrainStep.future(pb.TrainStepRequest(session_id=owner.create(), inputs=X), timeout=TIMEOUT)
    assert held.begun.wait(TIMEOUT)
    assert owner.server._neighbours.lanes is not None
    owner.server._neighbours.lanes.close()
    told = refused(call.result)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    held.stopped.set()  # or its end would wait for what it computes


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
