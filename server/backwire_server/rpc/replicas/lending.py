"""Has parts of batches computed for the other servers that share the data directory, by helpers that are free.

What is lent are the helper processes of this server, so at most `--max-helpers`, and none that its own sessions use;
the memory counts as that of sessions. What does not fit is refused, and computed where it came from.
"""

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
from backwire_server.rpc.replicas.peer_proof import MOST_UNPROVEN, Unproven, challenge, challenge_message, greeting_of
from backwire_server.rpc.replicas.peer_wire import Chunk, Request, Requests, Responses, read_request, write_response
from backwire_server.sessions.budget import Account
from backwire_server.sessions.errors import InvalidRequest, Overloaded, ShuttingDown
from backwire_server.sessions.limits import Limits
from backwire_server.storage.journal.environment import differences

SERVICE = peer_pb2.DESCRIPTOR.services_by_name["PeerService"].full_name
METHOD = "ComputeParts"

STREAMS = 4
"""How many streams there may be for each helper: those of several servers, most of which have nothing to compute."""

SPARE_THREADS = MOST_UNPROVEN + 4  # the others for refusals


class Lending:
    """Serves PeerService. May be used by several threads at once."""

    def __init__(
        self,
        crew: Crew,
        secret: bytes,
        address: Callable[[], str],
        limits: Limits,
        account: Callable[[], Account],
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        """Lends helpers of the crew to callers who prove to know the secret and compute with the same `environment`.

        They call the server at its `address`, as the directory tells it.
        """
        self._crew, self._limits, self._account, self._environment = crew, limits, account, environment
        self._secret, self._address, self._unproven = secret, address, Unproven()
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
            meeting = challenge(self._secret, self._address(), context.invocation_metadata() or ())
            with self._unproven.waiting(context):
                yield challenge_message(meeting)
                greeting = greeting_of(next(requests, None), meeting)
            with self._stream(context):
                self._compare(greeting)
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
        stop = Stop()
        if not context.add_callback(lambda: setattr(stop, "wanted", True)):
            return
        guest = Guest(self._crew, self._limits, self._account())
        try:
            yield peer_pb2.ComputePartsResponse(ready=peer_pb2.PeerReady())
            for request in requests:
                with self._busy(context):
                    yield from guest.answer(_order(request), requests, stop)
        finally:
            guest.leave()

    def _compare(self, greeting: peer_pb2.PeerGreeting) -> None:
        found = differences(greeting.environment, self._environment())
        if found:
            raise _Unlike(f"the bits would not be the same: {found}")

    @contextmanager
    def _stream(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts a stream; raises Overloaded and ShuttingDown."""
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
