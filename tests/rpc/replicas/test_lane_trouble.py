"""What goes wrong with lanes: sockets, threads, deadlines and sizes, at either end."""

import errno
import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from tests.access.conftest import entry, new_token, write
from tests.graphs import dot_graph
from tests.rpc.conftest import LONGER, TIMEOUT, Api
from tests.rpc.replicas.serving import Held, Until, X, lane_port, lane_to, place_of, secret_of, started

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Access
from backwire_server.rpc.replicas import lane_frames, lane_greeting, lane_server, lanes
from backwire_server.rpc.replicas.lane_context import LaneContext
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.lane_server import LaneServer
from backwire_server.rpc.replicas.passing import FORWARDED_KEY
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.training import trainer


def lanes_of(owner: Api) -> LaneServer:
    assert owner.server._neighbours.lanes is not None
    return owner.server._neighbours.lanes


def head(timeout: float | None = None) -> dict[str, Any]:
    return {"method": "TrainStep", "timeout": timeout, "metadata": [[FORWARDED_KEY, "b"]]}


def stalled() -> None:
    raise AssertionError("the lane stands, and nothing comes")


def serves(owner: Api, lane: lanes.Lane) -> bool:
    """Tells whether a call on a lane is done."""
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X).SerializeToString()
    return not lane.exchange(head(), request, lane_frames.break_off).failed


def test_a_call_whose_deadline_has_passed_is_ended_though_its_lane_stands(
    owner: Api, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    held = Held(until)
    monkeypatch.setitem(trainer._COMPUTING, TrainCall, held.train)
    lane = lane_to(owner)
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X).SerializeToString()
    for seconds in LONGER:
        assert lane.exchange(head(seconds), request, lambda: None).failed
        if held.begun.is_set():
            break
    assert held.stopped.wait(TIMEOUT)
    lane.close()


def test_a_call_on_a_lane_is_known_by_its_token_alone(tmp_path: Path) -> None:
    names = {"none": "", "wrong": new_token(), "reads": new_token(), "writes": new_token()}
    entries = [entry(names["reads"], scope='"read"'), entry(names["writes"], scope='"write"')]
    tokens = write(tmp_path / "tokens.toml", entries)
    owner = Api(started(tmp_path / "data", "a", Access(tokens=str(tokens))))
    lane, codes = lane_to(owner), {}
    request = pb.CreateSessionRequest(graph=dot_graph()).SerializeToString()
    for who, token in names.items():
        metadata = [[FORWARDED_KEY, "b"], *([["authorization", f"Bearer {token}"]] if token else [])]
        asked = {"method": "CreateSession", "timeout": None, "metadata": metadata}
        answer = lane.exchange(asked, request, lane_frames.break_off)
        codes[who] = status_pb2.Status.FromString(answer.message).code if answer.failed else 0
    unauthenticated, denied = grpc.StatusCode.UNAUTHENTICATED.value[0], grpc.StatusCode.PERMISSION_DENIED.value[0]
    assert codes == {"none": unauthenticated, "wrong": unauthenticated, "reads": denied, "writes": 0}
    lane.close()
    owner.channel.close()
    owner.server.stop(5.0)


def test_a_lane_waits_where_there_are_no_descriptors_and_is_accepted_later(
    owner: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, rested, enough = lanes_of(owner), threading.Event(), threading.Event()
    listener = server._listener

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

        def accept(self) -> Any:
            if enough.is_set():
                return listener.accept()
            raise OSError(errno.EMFILE, "too many open files")

    def rest(_: float) -> None:
        rested.set()
        enough.wait(TIMEOUT)

    monkeypatch.setattr(lane_server, "time", SimpleNamespace(sleep=rest))
    monkeypatch.setattr(server, "_listener", Full())
    with socket.create_connection(("127.0.0.1", lane_port(owner)), TIMEOUT) as connection:
        assert rested.wait(TIMEOUT)
        enough.set()
        lane_greeting.open_lane(connection, secret_of(owner), place_of(owner))


def test_a_lane_that_cannot_be_watched_is_refused_and_the_next_is_not(
    owner: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = lanes_of(owner)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(watching, name)

        def register(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    watching = server._epoll
    with monkeypatch.context() as patch:
        patch.setattr(server, "_epoll", Full())
        with pytest.raises((LaneBroken, OSError)):
            lane_to(owner)
    lane = lane_to(owner)
    assert serves(owner, lane)
    lane.close()


def test_a_lane_that_has_no_thread_is_refused_and_the_next_is_not(owner: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises((LaneBroken, OSError)):
            lane_to(owner)
    lane = lane_to(owner)
    assert serves(owner, lane)
    lane.close()


def test_a_call_that_ends_as_nobody_foresaw_is_over_and_that_is_logged(
    owner: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    contexts: list[LaneContext] = []

    def fail(_: Iterator[bytes], context: LaneContext) -> bytes:
        contexts.append(context)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(lanes_of(owner), "_behaviours", {"TrainStep": fail})
    lane = lane_to(owner)
    with pytest.raises(LaneBroken):
        lane.exchange(head(), b"", lambda: None)
    assert not contexts[0].is_active()
    assert "RuntimeError: unforeseen" in caplog.text
    lane.close()


def test_a_message_that_is_larger_than_any_ends_its_lane(owner: Api) -> None:
    data = json.dumps(head()).encode()
    lane = lane_to(owner)
    lane._connection.sendall(struct.pack("<IQ", len(data), 1 << 63) + data)
    lane._connection.settimeout(TIMEOUT)
    with pytest.raises(LaneBroken):
        lane_frames.receive(lane._connection, 1, stalled)
    lane.close()


def test_a_connection_whose_other_end_takes_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lane_frames._LIFE, "TCP_USER_TIMEOUT", 500)
    looks = iter(range(round(TIMEOUT / 0.1)))

    def look() -> None:
        next(looks)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
    ):
        lane_frames.prepare(connection, 0.1)
        with pytest.raises(LaneBroken):
            lane_frames.send(connection, head(), bytes(64 << 20), look)


def test_a_message_that_comes_in_parts_is_whole_and_each_wait_for_the_next_is_looked_at() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
        listener.accept()[0] as sender,
    ):
        lane_frames.prepare(connection, TIMEOUT)
        lane_frames.be_patient(connection, 0.02)
        rest = iter([b"wi", b"re", b"!"])
        sender.sendall(b"back")
        assert lane_frames.receive(connection, 8, lambda: sender.sendall(next(rest))) == b"backwire"
        assert list(rest) == [b"!"]


def test_a_server_on_all_addresses_has_its_lanes_there_too_for_who_calls_it_where_it_advertises(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    owner = Api(started(tmp_path, "a", listen="[::]:0", advertise="127.0.0.1:1"))
    lane = lanes.Lane("127.0.0.1:1", str(lane_port(owner)), secret_of(owner))
    assert serves(owner, lane)
    lane.close()
    owner.channel.close()
    owner.server.stop(5.0)
