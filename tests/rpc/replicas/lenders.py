"""Servers that compute parts for others, those that answer what a test says, and what is computed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

import backwire as bw
from backwire_api.v1 import peer_pb2, peer_pb2_grpc, tensor_pb2
from backwire_server.config_parts import Access
from backwire_server.parallel.crew import Crew
from backwire_server.rpc.listening import credentials_of
from backwire_server.rpc.replicas.lending import Lending
from backwire_server.rpc.replicas.peer_proof import challenge, challenge_message
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.limits import Limits

SECRET = b"the secret of a directory"
EXAMPLES = 11
READY = peer_pb2.ComputePartsResponse(ready=peer_pb2.PeerReady())
BUSY = peer_pb2.ComputePartsResponse(refusal=peer_pb2.PartRefusal(reason=peer_pb2.PART_REFUSAL_REASON_BUSY))
HUGE = peer_pb2.ArrayKind(name="logits", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1 << 60])


def batch(number: int) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {"x": draw.normal(size=(EXAMPLES, 4)).astype(np.float32), "y": draw.integers(0, 3, size=EXAMPLES)}


def network() -> bw.Graph:
    x, y = bw.input("x", ("batch", 4)), bw.input("y", ("batch",), dtype="int64")
    scale = bw.parameter("scale", np.linspace(0.5, 1.5, 4, dtype=np.float32), frozen=True)
    logits = bw.dense(bw.dropout(bw.tanh(bw.dense(x * scale, 6, name="in"))), 3, name="out")
    return bw.graph(loss=bw.softmax_cross_entropy(logits, y), outputs={"logits": logits})


@dataclass
class Lender:
    """A server that lends the helpers of a crew within a budget."""

    crew: Crew
    budget: Budget
    lending: Lending
    address: str


@contextmanager
def lending(most: int = 1, nbytes: int = 1 << 30, access: Access | None = None, **environment: str) -> Iterator[Lender]:
    crew, budget = Crew(most), Budget(nbytes)
    made = Lending(crew, SECRET, lambda: address, Limits(), budget.account, lambda: environment)
    server = grpc.server(ThreadPoolExecutor(1))
    made.add_to(server)
    if access is None:
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        credentials = credentials_of(access)
        assert credentials is not None
        address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()
    try:
        yield Lender(crew, budget, made, address)
    finally:
        server.stop(0).wait()
        crew.close()
        made.close()


@contextmanager
def answering(*answers: peer_pb2.ComputePartsResponse, secret: bytes = SECRET) -> Iterator[tuple[list[int], str]]:
    """A server that greets, and answers each part with the same messages; gives their numbers as they come."""
    asked: list[int] = []

    class Service(peer_pb2_grpc.PeerServiceServicer):
        def ComputeParts(self, requests: Any, context: grpc.ServicerContext) -> Iterator[peer_pb2.ComputePartsResponse]:
            yield challenge_message(challenge(secret, address, context.invocation_metadata()))
            for request in requests:
                if request.HasField("greeting"):
                    yield READY
                if request.HasField("part"):
                    asked.append(request.part.number)
                    yield from answers

    server = grpc.server(ThreadPoolExecutor(4))
    peer_pb2_grpc.add_PeerServiceServicer_to_server(Service(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield asked, address
    finally:
        server.stop(0).wait()
