"""Lanes are for servers that share the directory: strangers get none, and keep nobody from theirs."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.rpc.conftest import TIMEOUT, Api
from tests.rpc.replicas.serving import X, lane_port, lane_to, place_of, secret_of

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.rpc.replicas import lane_frames, lane_server
from backwire_server.rpc.replicas import lane_greeting as greeting
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.lanes import LANES_KEY, Lane
from backwire_server.rpc.replicas.passing import FORWARDED_KEY
from backwire_server.rpc.replicas.proving import NONCE_BYTES, PROOF_BYTES, Meeting

CLOSED = b""


def stranger(owner: Api) -> socket.socket:
    """Connects to where a server has lanes."""
    return socket.create_connection(("127.0.0.1", lane_port(owner)), TIMEOUT)


def challenged(connection: socket.socket, caller: bytes) -> bytes:
    """Sends a nonce; returns that of the server."""
    connection.sendall(caller)
    called = lane_frames.receive(connection, NONCE_BYTES)
    lane_frames.receive(connection, PROOF_BYTES)
    return called


def is_refused(connection: socket.socket, sent: bytes) -> bool:
    """Sends bytes; tells whether the connection ends then, whatever comes before."""
    connection.sendall(sent)
    try:
        return len(connection.makefile("rb").read()) in (0, NONCE_BYTES + PROOF_BYTES)
    except ConnectionResetError:
        return True


def serves(owner: Api, lane: Lane) -> bool:
    """Tells whether a call on a lane is done."""
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X).SerializeToString()
    head = {"method": "TrainStep", "timeout": None, "metadata": [[FORWARDED_KEY, "b"]]}
    return not lane.exchange(head, request, lane_frames.break_off).failed


def test_who_knows_another_secret_gets_no_lane(owner: Api) -> None:
    with pytest.raises(LaneBroken):
        lane_to(owner, bytes(32))


def test_a_proof_that_was_seen_is_refused_on_another_connection(owner: Api) -> None:
    caller = bytes(range(NONCE_BYTES))
    with stranger(owner) as first, stranger(owner) as second:
        seen = Meeting(
            secret_of(owner), greeting.PURPOSE, place_of(owner), caller, challenged(first, caller)
        ).proof_of_caller
        challenged(second, caller)
        assert is_refused(second, seen)
        first.sendall(seen)
        assert first.recv(1) == greeting.OPENED


def test_a_server_does_not_take_its_own_proof_for_that_of_another(owner: Api) -> None:
    with stranger(owner) as connection:
        connection.sendall(bytes(NONCE_BYTES))
        lane_frames.receive(connection, NONCE_BYTES)
        assert is_refused(connection, lane_frames.receive(connection, PROOF_BYTES))


def test_a_process_that_got_the_port_of_a_server_gets_neither_a_proof_nor_a_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as opener:
        opener.connect(listener.getsockname())
        opener.settimeout(TIMEOUT)
        impostor, _ = listener.accept()
        with impostor:
            impostor.sendall(bytes(NONCE_BYTES + PROOF_BYTES))
            with pytest.raises(LaneBroken):
                greeting.open_lane(opener, b"secret", "127.0.0.1:1, port 2")
            opener.close()
            assert len(impostor.recv(1 << 10)) == NONCE_BYTES
            assert impostor.recv(1) == CLOSED


def test_a_process_that_got_a_port_opens_no_lane_by_passing_on_what_two_servers_prove(owner: Api) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool, stranger(owner) as further:
        gone = listener.getsockname()[1]
        opened = pool.submit(Lane, owner.server.address, str(gone), secret_of(owner))
        listener.settimeout(TIMEOUT)
        impostor, _ = listener.accept()
        with impostor:
            further.sendall(lane_frames.receive(impostor, NONCE_BYTES))
            impostor.sendall(lane_frames.receive(further, NONCE_BYTES + PROOF_BYTES))
            with pytest.raises(LaneBroken):
                opened.result(TIMEOUT)
            assert impostor.recv(1) == CLOSED


def test_a_proof_for_a_server_elsewhere_opens_no_lane(owner: Api) -> None:
    caller, elsewhere = bytes(range(NONCE_BYTES)), greeting.place_of("127.0.0.1:1", str(lane_port(owner)))
    with stranger(owner) as connection:
        called = challenged(connection, caller)
        meeting = Meeting(secret_of(owner), greeting.PURPOSE, elsewhere, caller, called)
        assert is_refused(connection, meeting.proof_of_caller)


def test_strangers_who_wait_give_their_places_to_who_comes(owner: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_server, "PROOF_SECONDS", 3_600.0)
    monkeypatch.setattr(lane_server, "MOST_UNPROVEN", 4)
    waiting = [stranger(owner) for _ in range(12)]
    lane = lane_to(owner)
    assert serves(owner, lane)
    assert [each.recv(1) for each in waiting[:8]] == [CLOSED] * 8
    assert serves(owner, lane), "a lane that stands is none of them"
    for each in waiting:
        each.close()
    lane.close()


def test_a_stranger_has_a_time_in_all_and_not_for_each_byte(owner: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_server, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lane_server, "PROOF_SECONDS", 0.05)
    monkeypatch.setattr(lane_frames, "prepare", lambda *_: None)  # so that no single byte is late
    with stranger(owner) as connection:
        assert is_refused(connection, b"n")


def test_what_a_server_tells_who_says_to_be_another_opens_no_lane(owner: Api) -> None:
    request = pb.TrainStepRequest(session_id=owner.create(), inputs=X)
    _, call = owner.stub.TrainStep.with_call(request, timeout=TIMEOUT, metadata=((FORWARDED_KEY, "b"),))
    told = str(dict(call.trailing_metadata())[LANES_KEY])
    with stranger(owner) as connection:
        assert is_refused(connection, told.encode().ljust(NONCE_BYTES + PROOF_BYTES, b"\0"))
