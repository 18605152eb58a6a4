"""A caller of PeerService that says what a test has it say."""

import queue
from typing import Self

import grpc
from tests.rpc.conftest import TIMEOUT

from backwire_api.v1 import peer_pb2, peer_pb2_grpc
from backwire_server.rpc.replicas.peer_proof import NONCE_KEY, PURPOSE
from backwire_server.rpc.replicas.proving import NONCE_BYTES, Meeting

NONCE = bytes(range(NONCE_BYTES))


class Caller:
    """A call that has been challenged. A context manager; the call ends with it.

    Attributes:
        call: What is answered.
        challenge: What the server said first.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.insecure_channel(address)
        self._requests: queue.SimpleQueue[peer_pb2.ComputePartsRequest | None] = queue.SimpleQueue()
        stub = peer_pb2_grpc.PeerServiceStub(self._channel)
        metadata = ((NONCE_KEY, NONCE.hex()),)
        self.call = stub.ComputeParts(iter(self._requests.get, None), metadata=metadata, timeout=TIMEOUT)
        self.challenge = next(self.call).challenge

    def meeting(self, secret: bytes, address: str = "") -> Meeting:
        """Returns what who knows the secret, and wants to call this address, takes from what was said."""
        return Meeting(secret, PURPOSE, address or self._address, NONCE, self.challenge.nonce)

    def greet(self, proof: bytes) -> None:
        """Sends a greeting with a proof."""
        self.say(peer_pb2.ComputePartsRequest(greeting=peer_pb2.PeerGreeting(proof=proof)))

    def say(self, request: peer_pb2.ComputePartsRequest | None) -> None:
        """Sends a message; None for no more."""
        self._requests.put(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.call.cancel()
        self._requests.put(None)
        self._channel.close()
