"""Parts are computed for servers that share the directory: strangers are refused, and keep nobody from it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tests.rpc.conftest import TIMEOUT
from tests.rpc.replicas.calling_peers import NONCE, Caller

from backwire_api.v1 import peer_pb2, peer_pb2_grpc
from backwire_server.parallel.crew import Crew
from backwire_server.rpc.replicas import peer_proof
from backwire_server.rpc.replicas.lending import Lending
from backwire_server.rpc.replicas.peer_proof import NONCE_KEY, met
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.limits import Limits

SECRET = b"common"
GREETING = peer_pb2.ComputePartsRequest(greeting=peer_pb2.PeerGreeting())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server that lends helpers."""
    crew = Crew(1)
    address = ""
    made = Lending(crew, SECRET, lambda: address, Limits(), Budget(1 << 30).account, dict)
    server = grpc.server(ThreadPoolExecutor(1))
    made.add_to(server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield address
    server.stop(0).wait()
    crew.close()
    made.close()


def code_of(caller: Caller) -> grpc.StatusCode:
    """Returns what a call ends with."""
    with pytest.raises(grpc.RpcError) as refused:
        next(caller.call)
    code: grpc.StatusCode = refused.value.code()
    return code


def is_ready(caller: Caller) -> bool:
    """Proves what is to be proved; tells whether parts may come."""
    caller.greet(caller.meeting(SECRET).proof_of_caller)
    found: bool = next(caller.call).HasField("ready")
    return found


def test_who_proves_it_is_taken_and_is_proved_the_same(address: str) -> None:
    with Caller(address) as caller:
        assert caller.challenge.proof == caller.meeting(SECRET).proof_of_called
        assert is_ready(caller)


def test_a_proof_that_was_seen_is_refused_on_another_call(address: str) -> None:
    with Caller(address) as seen, Caller(address) as again:
        assert is_ready(seen)
        again.greet(seen.meeting(SECRET).proof_of_caller)
        assert code_of(again) is grpc.StatusCode.UNAUTHENTICATED


def test_the_servers_own_proof_is_none_of_its_caller(address: str) -> None:
    with Caller(address) as caller:
        caller.greet(caller.challenge.proof)
        assert code_of(caller) is grpc.StatusCode.UNAUTHENTICATED


def test_a_proof_for_a_server_elsewhere_is_refused(address: str) -> None:
    with Caller(address) as caller:
        caller.greet(caller.meeting(SECRET, "127.0.0.1:1").proof_of_caller)
        assert code_of(caller) is grpc.StatusCode.UNAUTHENTICATED


def test_a_server_that_was_not_the_one_to_be_called_is_told_nothing(address: str) -> None:
    with Caller(address) as caller:
        answered = peer_pb2.ComputePartsResponse(challenge=caller.challenge)
        assert met(SECRET, address, NONCE, answered) == caller.meeting(SECRET)
        with pytest.raises(ValueError, match="and has this address"):
            met(SECRET, "127.0.0.1:1", NONCE, answered)


@pytest.mark.parametrize("first", [GREETING, peer_pb2.ComputePartsRequest(chunk=b"bytes"), None])
def test_who_proves_nothing_is_refused(address: str, first: peer_pb2.ComputePartsRequest | None) -> None:
    with Caller(address) as caller:
        caller.say(first)
        assert code_of(caller) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("nonce", [None, "", "no digits", NONCE.hex()[2:]])
def test_a_call_without_a_nonce_is_refused(address: str, nonce: str | None) -> None:
    metadata = () if nonce is None else ((NONCE_KEY, nonce),)
    with grpc.insecure_channel(address) as channel:
        stub = peer_pb2_grpc.PeerServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="servers that share the data directory") as refused:
            list(stub.ComputeParts(iter([GREETING]), metadata=metadata, timeout=TIMEOUT))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_strangers_who_wait_give_their_places_to_who_comes(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_proof, "PROOF_SECONDS", 3_600.0)
    with Caller(address) as waits, Caller(address) as last:
        others = [Caller(address) for _ in range(peer_proof.MOST_UNPROVEN - 1)]
        assert code_of(waits) is grpc.StatusCode.CANCELLED
        assert is_ready(last), "which was the oldest then, of as many as there may be"
        for other in others:
            with other:
                assert is_ready(other)


def test_a_stranger_does_not_wait_for_long(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_proof, "PROOF_SECONDS", 0.05)
    with Caller(address) as caller:
        assert code_of(caller) is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("field", ["definition_bytes", "trainable_bytes", "frozen_bytes", "working_bytes"])
def test_sizes_that_are_none_are_refused(address: str, field: str) -> None:
    order = peer_pb2.PartOrder()
    setattr(order, field, -1)
    with Caller(address) as caller:
        caller.greet(caller.meeting(SECRET).proof_of_caller)
        caller.say(peer_pb2.ComputePartsRequest(part=order))
        with pytest.raises(grpc.RpcError, match="-1 bytes are no size") as refused:
            list(caller.call)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
