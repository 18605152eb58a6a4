"""A stream to another server that computes parts of batches, one at a time."""

import contextlib
import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from backwire_api.v1 import peer_pb2
from backwire_server.engine.fingerprint import fingerprint
from backwire_server.messages.parts import order_of
from backwire_server.parallel.member import MOST_MODELS
from backwire_server.parallel.part import frozen_kinds, given_bytes
from backwire_server.parallel.segment import packed_bytes
from backwire_server.parallel.task import Places, Result, Work
from backwire_server.rpc.replicas.connections import Connections, check_room
from backwire_server.rpc.replicas.peer_answer import Arriving
from backwire_server.rpc.replicas.peer_proof import NONCE_KEY, met
from backwire_server.rpc.replicas.peer_wire import Chunk, Requests, Response, chunks, read_response, write_request
from backwire_server.rpc.replicas.proving import fresh_nonce
from backwire_server.sessions.errors import Overloaded

PATH = "/backwire_api.v1.PeerService/ComputeParts"

IDLE_SECONDS = 60.0
"""After how long without a part the stream ends."""

REST_SECONDS = 0.5
"""How long a server is not asked that had nothing free."""


class PeerRemote:
    """Implements `parallel.shift.Remote`. For one thread at a time.

    Attributes:
        address: Where the other server is.
        ended: Whether nothing can come of it any more.
    """

    def __init__(
        self,
        address: str,
        connections: Connections,
        secret: bytes,
        environment: Mapping[str, str],
        told: Callable[["PeerRemote", Exception | None], None],
        carried: Callable[[int, int], None],
    ) -> None:
        """Begins the stream.

        `told` is called in another thread when it ends, with what it ended with if that was not here, and `carried`
        with the bytes sent for each part, and those received.
        """
        self.address = address
        self.connection, self._bell = socket.socketpair()
        self.place: int | None = None
        self.busy, self.ready, self.ended, self.tells = True, False, False, False
        self._since = time.monotonic()
        self._rests_until = 0.0
        self._rung = self._greeted = False
        self._models: OrderedDict[int, None] = OrderedDict()
        self._there: dict[str, tuple[int, ...]] = {}
        self._mutex = threading.Lock()
        self._arriving: Arriving | None = None
        self._told, self._carried = told, carried
        self._call: Any = None
        self._requests: queue.SimpleQueue[Requests | None] = queue.SimpleQueue()
        terms = connections, secret, environment
        threading.Thread(target=self._converse, args=terms, name="backwire-peer", daemon=True).start()

    @property
    def willing(self) -> bool:
        """Whether it had something free when it was asked last, or that was a while ago."""
        return time.monotonic() >= self._rests_until

    @property
    def seconds(self) -> float:
        """How long ago it was given its part, or was begun."""
        return time.monotonic() - self._since

    def give(self, work: Work, place: int) -> None:
        """Has it compute a part, with whatever it does not have yet; raises OSError."""
        part, places = work.placed(place)
        order = order_of(part)
        order.model, order.working_bytes = work.model, work.pace.nbytes
        lent = [*self._definition(order, work), *self._parameters(order, work, places)]
        lent.append(places.inputs.content(given_bytes(part)))
        with self._mutex:
            if self.ended:
                raise BrokenPipeError(f"the stream to {self.address} has ended")
            self._arriving = Arriving(part, places.gradients)
        self._carried(sum(map(len, lent)), 0)
        self._requests.put(_messages(order, lent))
        self.place, self.busy, self._since = place, True, time.monotonic()

    def answer(self) -> Result | None:
        """Returns what was computed; None where that was refused. Raises EOFError, OSError."""
        if not self.connection.recv(1):
            raise EOFError
        with self._mutex:
            arrived, self._arriving, self._rung = self._arriving, None, False
        self.busy, self.ready, self.place = False, True, None
        if arrived is None or arrived.refusal is None:
            return None if arrived is None else arrived.result()
        if arrived.refusal != peer_pb2.PART_REFUSAL_REASON_FAILED:
            self._rests_until = time.monotonic() + REST_SECONDS
        if arrived.refusal == peer_pb2.PART_REFUSAL_REASON_MEMORY:
            self._there.clear()
        return None

    def catch_up(self) -> None:
        """Takes the answer that nobody waited for, if it has come."""
        if self.busy and self._rung:
            with contextlib.suppress(OSError, EOFError):
                self.answer()

    def leave(self) -> None:
        """Has nobody wait for the part that it has: when this returns, nothing is written of it any more."""
        with self._mutex:
            if self._arriving is not None:
                self._arriving.forget()
        self.place = None

    def end(self) -> None:
        """Ends the stream, and what is computed for it."""
        self.leave()
        with self._mutex:
            self.ended = True
            call = self._call
        self._requests.put(None)
        if call is not None:
            call.cancel()
        self.connection.close()

    def _definition(self, order: peer_pb2.PartOrder, work: Work) -> list[memoryview]:
        """Returns the bytes that tell of the graph, where the other server does not know it, and notes that it does."""
        self.tells = work.model in self._models
        self._models[work.model] = None
        self._models.move_to_end(work.model)
        if len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        if self.tells:
            return []
        order.fingerprint, order.definition_bytes = fingerprint(work.graph).digest, len(work.definition)
        return [memoryview(work.definition)]

    def _parameters(self, order: peer_pb2.PartOrder, work: Work, places: Places) -> list[memoryview]:
        """Returns the bytes of parameters that the other server does not have, and notes that it has them."""
        trainable, frozen = places.trainable, places.frozen
        lent = []
        if self._is_new("trainable", work.model, trainable.number, trainable.edition):
            order.trainable_bytes = trainable.nbytes
            lent.append(trainable.content())
        nbytes = packed_bytes(frozen_kinds(work.graph))
        if self._is_new("frozen", work.model, frozen.number) and nbytes:
            order.frozen_bytes = nbytes
            lent.append(frozen.content(nbytes))
        return lent

    def _is_new(self, name: str, *edition: int) -> bool:
        known = self._there.get(name)
        self._there[name] = edition
        return known != edition

    def _converse(self, connections: Connections, secret: bytes, environment: Mapping[str, str]) -> None:
        nonce = fresh_nonce()
        problem: Exception | None = None
        try:
            with connections.to(self.address) as connection:
                check_room()
                method = connection.channel.stream_stream(PATH, write_request, read_response)
                call = method(self._outgoing(), metadata=((NONCE_KEY, nonce.hex()),))
                with self._mutex:
                    self._call = call
                    if self.ended:
                        call.cancel()
                meeting = met(secret, self.address, nonce, next(call, None))
                greeting = peer_pb2.PeerGreeting(environment=environment, proof=meeting.proof_of_caller)
                self._requests.put(iter([peer_pb2.ComputePartsRequest(greeting=greeting)]))
                for response in call:
                    self._take(response)
        except (grpc.RpcError, OSError, ValueError, MemoryError, Overloaded) as error:  # ValueError: a closed channel's
            problem = error
        finally:
            with self._mutex:
                here, self.ended = self.ended, True
            self._requests.put(None)
            self._bell.close()
            self._told(self, None if here else problem)

    def _outgoing(self) -> Requests:
        """Yields the messages, in a thread of gRPC's."""
        with contextlib.suppress(queue.Empty):
            while (messages := self._requests.get(timeout=IDLE_SECONDS)) is not None:
                yield from messages

    def _take(self, response: Response) -> None:
        """Takes a message of an answer; raises ValueError for one that should not come."""
        received = 0
        with self._mutex:
            is_ready = not isinstance(response, Chunk) and response.HasField("ready")
            awaited = self._arriving is not None and not self._arriving.whole
            if is_ready is self._greeted or not (is_ready or awaited):
                raise ValueError("an answer came to nothing that was asked")
            self._greeted = True
            if self._arriving is not None:
                self._arriving.take(response)
                if not self._arriving.whole:
                    return
                received = self._arriving.nbytes
        self._carried(0, received)
        self._rung = True
        with contextlib.suppress(OSError):  # it was ended meanwhile
            self._bell.send(b".")


def _messages(order: peer_pb2.PartOrder, lent: list[memoryview]) -> Requests:
    """Yields the messages of a part, which are made while they are sent."""
    yield peer_pb2.ComputePartsRequest(part=order)
    for content in lent:
        yield from chunks(content)
