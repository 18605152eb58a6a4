"""A server that has parts computed here: the graphs and parameters that it has sent, and the part that it sends."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from backwire_api.v1 import peer_pb2
from backwire_server.engine.fingerprint import fingerprint
from backwire_server.engine.graph import Graph
from backwire_server.engine.stopping import Stop
from backwire_server.messages.parts import graph_of_definition, part_of, result_to_proto
from backwire_server.parallel.crew import Crew, NoneFree
from backwire_server.parallel.member import MOST_MODELS
from backwire_server.parallel.part import frozen_kinds, given_bytes, layout_of
from backwire_server.parallel.segment import Segment, packed, packed_bytes, vector_kinds
from backwire_server.parallel.task import Part, Places, Result, Work, fresh_number
from backwire_server.rpc.replicas.peer_wire import Chunk, Requests, Responses, chunks
from backwire_server.sessions.budget import Account
from backwire_server.sessions.errors import InvalidRequest, OutOfMemory
from backwire_server.sessions.limits import Limits

Reason = peer_pb2.PartRefusalReason


@dataclass(frozen=True, slots=True)
class _Known:
    """A graph that the other server has told of, and what stands for it here."""

    graph: Graph
    number: int


class Guest:
    """What one stream of another server has here. For one thread at a time."""

    def __init__(self, crew: Crew, limits: Limits, account: Account) -> None:
        """Has the helpers of the crew compute; the memory counts for the account."""
        self._crew, self._limits, self._account = crew, limits, account
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._model: int | None = None
        self._places: Places | None = None

    def answer(self, order: peer_pb2.PartOrder, requests: Requests, stop: Stop) -> Responses:
        """Yields the answer to an order, whose chunks come next; raises what is wrong with it, and Stopped."""
        _check_sizes(order)
        known = self._known_graph(order, requests)
        part = part_of(order)
        try:
            places = self._room(order, part, known.graph)
        except (OutOfMemory, OSError):  # the latter where the system gives none that processes share
            _skip(requests, _chunk_bytes(order, part))
            self._give_up_room()
            yield _refusal(Reason.PART_REFUSAL_REASON_MEMORY)
            return
        _fill(requests, places.trainable.content(order.trainable_bytes))
        _fill(requests, places.frozen.content(order.frozen_bytes))
        _fill(requests, places.inputs.content(given_bytes(part)))
        try:
            result = self._computed(order, Work(known.number, known.graph, 1, lambda _: (part, places)), stop)
        except (NoneFree, OutOfMemory):
            yield _refusal(Reason.PART_REFUSAL_REASON_BUSY)
            return
        if result is None:
            yield _refusal(Reason.PART_REFUSAL_REASON_FAILED)
            return
        yield peer_pb2.ComputePartsResponse(result=result_to_proto(result))
        gradients = places.gradients.content() if part.differentiates else memoryview(b"")
        for data in (gradients, packed(result.outputs), packed(result.inputs)):
            yield from chunks(data)

    def leave(self) -> None:
        """Gives up all memory."""
        self._give_up_room()

    def _computed(self, order: peer_pb2.PartOrder, work: Work, stop: Stop) -> Result | None:
        self._account.reserve(order.working_bytes)
        try:
            return self._crew.lend(work, stop)
        finally:
            self._account.give_back(order.working_bytes)

    def _known_graph(self, order: peer_pb2.PartOrder, requests: Requests) -> _Known:
        if order.definition_bytes:
            if order.definition_bytes > self._limits.max_message_bytes:
                raise InvalidRequest(
                    f"the definition has {order.definition_bytes:,} bytes, but a message may have "
                    f"{self._limits.max_message_bytes:,}; raise --max-message-bytes here, too",
                    field="part.definition_bytes",
                )
            definition = bytearray(order.definition_bytes)
            _fill(requests, memoryview(definition))
            graph = graph_of_definition(bytes(definition), self._limits)
            if fingerprint(graph).digest != order.fingerprint:
                raise InvalidRequest("the graph is another here; have servers of one version", field="part.fingerprint")
            self._known[order.model] = _Known(graph, fresh_number())
        if order.model not in self._known:
            raise InvalidRequest(f"graph {order.model} is not known; send its definition", field="part.model")
        self._known.move_to_end(order.model)
        if len(self._known) > MOST_MODELS:
            self._known.popitem(last=False)
        return self._known[order.model]

    def _room(self, order: peer_pb2.PartOrder, part: Part, graph: Graph) -> Places:
        """Returns where what the part needs lies, or will; raises OutOfMemory, and InvalidRequest for wrong sizes."""
        inputs = given_bytes(part)
        if self._places is None or self._model != order.model:
            self._give_up_room()
            vectors, frozen = packed_bytes(vector_kinds(layout_of(graph))), packed_bytes(frozen_kinds(graph))
            self._account.reserve(2 * vectors + frozen + inputs)
            self._places = Places(Segment(vectors), Segment(frozen), Segment(inputs), Segment(vectors))
            self._model = order.model
            _check(order.trainable_bytes, self._places.trainable.nbytes, "part.trainable_bytes")
            _check(order.frozen_bytes, frozen, "part.frozen_bytes")
        elif self._places.inputs.nbytes < inputs:
            self._account.reserve(inputs - self._places.inputs.nbytes)
            self._places = replace(self._places, inputs=Segment(inputs))
        places = self._places
        if order.trainable_bytes:
            _check(order.trainable_bytes, places.trainable.nbytes, "part.trainable_bytes")
        if order.frozen_bytes:
            _check(order.frozen_bytes, places.frozen.nbytes, "part.frozen_bytes")
        return places

    def _give_up_room(self) -> None:
        self._places = self._model = None
        self._account.settle(0)


def _check_sizes(order: peer_pb2.PartOrder) -> None:
    for field in ("definition_bytes", "trainable_bytes", "frozen_bytes", "working_bytes"):
        if (nbytes := getattr(order, field)) < 0:
            raise InvalidRequest(f"{nbytes:,} bytes are no size; send 0 or more", field=f"part.{field}")


def _check(given: int, wanted: int, field: str) -> None:
    if given != wanted:
        raise InvalidRequest(f"{given:,} bytes are to come where {wanted:,} are needed; send all of them", field=field)


def _chunk_bytes(order: peer_pb2.PartOrder, part: Part) -> int:
    return order.trainable_bytes + order.frozen_bytes + given_bytes(part)


def _received(requests: Requests) -> memoryview:
    request = next(requests, None)
    if not isinstance(request, Chunk):
        raise InvalidRequest("the chunks of the part before are not complete; send all of them", field="chunk")
    return request.data


def _fill(requests: Requests, target: memoryview) -> None:
    """Has what comes next lie in the target, to its end."""
    start = 0
    while start < len(target):
        chunk = _received(requests)
        if len(chunk) > len(target) - start or not chunk:
            raise InvalidRequest(f"a chunk of {len(chunk):,} bytes does not fit; send what was told", field="chunk")
        target[start : start + len(chunk)] = chunk
        start += len(chunk)


def _skip(requests: Requests, nbytes: int) -> None:
    while nbytes > 0:
        nbytes -= max(len(_received(requests)), 1)


def _refusal(reason: Reason.ValueType) -> peer_pb2.ComputePartsResponse:
    return peer_pb2.ComputePartsResponse(refusal=peer_pb2.PartRefusal(reason=reason))
