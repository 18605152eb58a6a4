"""Has parts of batches computed for the other servers that share the data directory, by helpers that are free.

What is lent are the helper processes of this server, so at most `--max-helpers`, and none that its own sessions use;
the memory counts as that of sessions. What does not fit is refused, and computed where it came from.
"""

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from backwire_api.v1 import peer_pb2
from backwire_server.engine.stopping import Stop, Stopped
from backwire_server.parallel.crew import Crew
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.replicas.peer_guest import Guest
from backwire_server.rpc.replicas.peer_wire import Chunk, Request, Requests, Responses, read_request, write_response
from backwire_server.sessions.budget import Account
from backwire_server.sessions.errors import InvalidRequest, Overloaded, ShuttingDown, Unauthenticated
from backwire_server.sessions.limits import Limits
from backwire_server.storage.environment import differences

SERVICE = peer_pb2.DESCRIPTOR.services_by_name["PeerService"].full_name
METHOD = "ComputeParts"

PEER_KEY = "backwire-peer"
"""In the metadata of a call, and of its answer: the proof that it comes from a server that shares the directory."""

NONCE_KEY = "backwire-peer-nonce"
"""In the metadata of a call: what the proof in the answer is for, another each time."""

STREAMS = 4
"""How many streams there may be for each helper: those of several servers, most of which have nothing to compute."""

SPARE_THREADS = 4  # for refusals


def proof_of(secret: bytes) -> str:
    """Returns what shows that whoever sends it can read the secret of the directory."""
    return hmac.new(secret, b"backwire PeerService", hashlib.sha256).hexdigest()


def answer_of(secret: bytes, nonce: str) -> str:
    """Returns what shows to whoever sent the nonce that whoever answers can read the secret of the directory."""
    return hmac.new(secret, f"backwire PeerService answers {nonce}".encode(), hashlib.sha256).hexdigest()


class Lending:
    """Serves PeerService. May be used by several threads at once."""

    def __init__(
        self,
        crew: Crew,
        secret: bytes,
        limits: Limits,
        account: Callable[[], Account],
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        """Lends helpers of the crew to callers who prove to know the secret and compute with the same `environment`."""
        self._crew, self._limits, self._account, self._environment = crew, limits, account, environment
        self._secret, self._proof = secret, proof_of(secret)
        self._most = STREAMS * crew.most
        self._pool = ThreadPoolExecutor(self._most + SPARE_THREADS, "backwire-peer")
        self._changed = threading.Condition()
        self._streams: dict[grpc.ServicerContext, bool] = {}  # whether one has a part
        self._closing = False

    def add_to(self, server: Any) -> None:
        """Adds the service to a gRPC server."""

        def compute_parts(requests: Requests, context: grpc.ServicerContext) -> Responses:
            return self.compute_parts(requests, context)

        behaviour: Any = compute_parts
        behaviour.experimental_thread_pool = self._pool
        handler = grpc.stream_stream_rpc_method_handler(behaviour, read_request, write_response)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))

    def compute_parts(self, requests: Requests, context: grpc.ServicerContext) -> Responses:
        """Answers a stream, as the contract says."""
        try:
            with self._stream(context):
                yield from self._answers(requests, context)
        except Stopped:
            context.cancel()
        except grpc.RpcError:
            raise
        except _Unlike as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except Exception as error:
            context.abort_with_status(rpc_status.to_status(status_of(error)[0]))

    def drain(self, seconds: float) -> None:
        """Takes no parts from now on, and waits so long for those that there are."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closing = True
            for context, busy in self._streams.items():
                if not busy:
                    context.cancel()
            self._changed.wait_for(lambda: not any(self._streams.values()), max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Gives up the threads, once all streams have ended."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answers(self, requests: Requests, context: grpc.ServicerContext) -> Responses:
        self._greet(next(requests, None))
        stop = Stop()
        if not context.add_callback(lambda: setattr(stop, "wanted", True)):
            return
        nonce = dict(context.invocation_metadata() or ()).get(NONCE_KEY, "")
        context.send_initial_metadata(((PEER_KEY, answer_of(self._secret, str(nonce))),))
        guest = Guest(self._crew, self._limits, self._account())
        try:
            yield peer_pb2.ComputePartsResponse(ready=peer_pb2.PeerReady())
            for request in requests:
                with self._busy(context):
                    yield from guest.answer(_order(request), requests, stop)
        finally:
            guest.leave()

    def _greet(self, request: Request | None) -> None:
        told = {} if request is None or isinstance(request, Chunk) else request.greeting.environment
        found = differences(told, self._environment())
        if found:
            raise _Unlike(f"the bits would not be the same: {found}")

    @contextmanager
    def _stream(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts a stream; raises Unauthenticated, Overloaded and ShuttingDown."""
        given = [value for key, value in context.invocation_metadata() or () if key == PEER_KEY]
        if len(given) != 1 or not hmac.compare_digest(str(given[0]).encode(), self._proof.encode()):
            raise Unauthenticated(
                "PeerService is for servers that share the data directory, and the call has no proof of that; give "
                "both servers the same --data-dir, or use GradientService"
            )
        with self._changed:
            if self._closing:
                raise ShuttingDown("the server is shutting down; compute the part yourself", retry_after=1.0)
            if len(self._streams) >= self._most:
                raise Overloaded(
                    f"{self._most} streams of other servers are open, which is the limit for {self._crew.most} helpers",
                    retry_after=1.0,
                    quota="max_helpers",
                )
            self._streams[context] = False
        try:
            yield
        finally:
            with self._changed:
                del self._streams[context]
                self._changed.notify_all()

    @contextmanager
    def _busy(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Notes that a stream has a part; raises ShuttingDown."""
        with self._changed:
            if self._closing:
                raise ShuttingDown("the server is shutting down; compute the part yourself", retry_after=1.0)
            self._streams[context] = True
        try:
            yield
        finally:
            with self._changed:
                self._streams[context] = False
                self._changed.notify_all()
                if self._closing:
                    context.cancel()


def _order(request: Request) -> peer_pb2.PartOrder:
    if isinstance(request, Chunk):
        raise InvalidRequest("a chunk comes before the part that it is for; send the part first", field="chunk")
    return request.part


class _Unlike(Exception):
    """The other server computes with something else."""
