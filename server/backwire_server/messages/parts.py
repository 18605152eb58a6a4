"""Parts of batches, and what they gave, as servers tell each other."""

from collections.abc import Iterable, Mapping

import numpy as np
from google.protobuf.message import DecodeError

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import peer_pb2
from backwire_server.engine.graph import Array, Graph
from backwire_server.messages.session import session_spec
from backwire_server.parallel.segment import Kind
from backwire_server.parallel.task import Part, Result
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.limits import Limits


def order_of(part: Part) -> peer_pb2.PartOrder:
    """Returns the order of a part of a TrainStep, without what concerns the graph and its parameters."""
    seed, number = part.key
    inputs = kinds_to_proto(part.inputs)
    order = peer_pb2.PartOrder(inputs=inputs, outputs=part.outputs, seed=seed, number=number)
    order.weight, order.scale = part.weight, part.scale
    return order


def part_of(order: peer_pb2.PartOrder) -> Part:
    """Returns the part that an order is for; raises TensorError."""
    key = order.seed, order.number
    return Part(kinds_from_proto(order.inputs), tuple(order.outputs), key, order.weight, order.scale)


def result_to_proto(result: Result) -> peer_pb2.PartResult:
    """Returns what a part gave, without elements."""
    assert result.loss is not None
    kinds = {name: (array.dtype, array.shape) for name, array in result.outputs.items()}
    return peer_pb2.PartResult(loss=result.loss, outputs=kinds_to_proto(kinds), parameters=result.parameters)


def result_from_proto(message: peer_pb2.PartResult, outputs: Mapping[str, Array]) -> Result:
    """Returns what a part gave, of which the outputs are these."""
    return Result(message.loss, outputs, tuple(message.parameters))


def kinds_to_proto(kinds: Mapping[str, Kind]) -> list[peer_pb2.ArrayKind]:
    """Returns what arrays are like, in their order."""
    return [
        peer_pb2.ArrayKind(name=name, dtype=tensors.data_type_of(dtype), shape=shape)
        for name, (dtype, shape) in kinds.items()
    ]


def kinds_from_proto(messages: Iterable[peer_pb2.ArrayKind]) -> dict[str, Kind]:
    """Returns what arrays are like; raises TensorError for what none can be like."""
    kinds: dict[str, Kind] = {}
    for each in messages:
        dtype = tensors.dtype_of(each.dtype)
        tensors.byte_count(dtype, each.shape)
        kinds[each.name] = np.dtype(dtype), tuple(each.shape)
    return kinds


def graph_of_definition(definition: bytes, limits: Limits) -> Graph:
    """Returns the graph of a session's definition; raises InvalidRequest, and what `session_spec` raises."""
    try:
        request = pb.CreateSessionRequest.FromString(definition)
    except DecodeError as error:
        raise InvalidRequest(f"the definition is no CreateSessionRequest: {error}; send that of a session") from None
    return session_spec(request, limits).graph
