"""How a call of PeerService is begun: each side proves to the other that it shares the data directory."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import grpc

from backwire_api.v1 import peer_pb2
from backwire_server.rpc.replicas.peer_wire import Chunk, Request, Response
from backwire_server.rpc.replicas.proving import NONCE_BYTES, Meeting, agree, fresh_nonce
from backwire_server.sessions.errors import Unauthenticated

PURPOSE = "PeerService"

NONCE_KEY = "backwire-peer-nonce"
"""In the metadata of a call: the nonce of the caller, in hexadecimal digits."""

MOST_UNPROVEN = 8
"""How many calls there may be of who has proved nothing yet; when another comes, the oldest is ended."""

PROOF_SECONDS = 2.0
"""How long who calls may take to prove that it shares the directory."""


def challenge(secret: bytes, address: str, metadata: Iterable[tuple[str, str | bytes]]) -> Meeting:
    """Returns what is said on a call of the server at an address, with these metadata.

    Raises Unauthenticated for those without a nonce.
    """
    try:
        caller = bytes.fromhex(str(dict(metadata).get(NONCE_KEY, "")))
    except ValueError:
        caller = b""
    if len(caller) != NONCE_BYTES:
        raise _stranger()
    return Meeting(secret, PURPOSE, address, caller, fresh_nonce())


def challenge_message(meeting: Meeting) -> peer_pb2.ComputePartsResponse:
    """Returns what the caller is told first."""
    told = peer_pb2.PeerChallenge(nonce=meeting.called, proof=meeting.proof_of_called)
    return peer_pb2.ComputePartsResponse(challenge=told)


def met(secret: bytes, address: str, caller: bytes, response: Response | None) -> Meeting:
    """Returns what was said on a call to an address that was first answered so.

    Raises ValueError for the answer of who cannot read the secret, or of the server at another address that a third
    passed on: another process may have got the port.
    """
    told = peer_pb2.PeerChallenge() if response is None or isinstance(response, Chunk) else response.challenge
    meeting = Meeting(secret, PURPOSE, address, caller, told.nonce)
    if len(told.nonce) != NONCE_BYTES or not agree(told.proof, meeting.proof_of_called):
        raise ValueError(
            "it does not prove that it shares the data directory and has this address; see that it is a replica "
            "of this one"
        )
    return meeting


def greeting_of(request: Request | None, meeting: Meeting) -> peer_pb2.PeerGreeting:
    """Returns the greeting that a call begins with; raises Unauthenticated where it proves nothing."""
    greeting = peer_pb2.PeerGreeting() if request is None or isinstance(request, Chunk) else request.greeting
    if not agree(greeting.proof, meeting.proof_of_caller):
        raise _stranger()
    return greeting


class Unproven:
    """The calls of who has proved nothing yet. May be used by several threads at once."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._calls: dict[grpc.ServicerContext, None] = {}

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts a call meanwhile, which ends if that takes long, or as the oldest of many."""
        late = threading.Timer(PROOF_SECONDS, context.cancel)
        late.daemon = True
        late.start()
        with self._mutex:
            self._calls[context] = None
            oldest = list(self._calls)[:-MOST_UNPROVEN]
        for stranger in oldest:
            stranger.cancel()
        try:
            yield
        finally:
            late.cancel()
            with self._mutex:
                del self._calls[context]


def _stranger() -> Unauthenticated:
    return Unauthenticated(
        "PeerService is for servers that share the data directory, and the call has no proof of that; give both "
        "servers the same --data-dir, or use GradientService"
    )
