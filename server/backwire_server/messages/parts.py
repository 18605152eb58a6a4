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
    """Returns the order of a part, without what concerns the graph and its parameters."""
    seed, number = part.key
    return peer_pb2.PartOrder(
        inputs=kinds_to_proto(part.inputs),
        outputs=part.outputs or (),
        all_outputs=part.outputs is None,
        seed=seed,
        number=number,
        scale=part.scale,
        seeds=kinds_to_proto(part.seeds),
        wrt=part.wrt,
        tells=part.tells,
        differentiates=part.differentiates,
    )


def part_of(order: peer_pb2.PartOrder) -> Part:
    """Returns the part that an order is for; raises TensorError."""
    return Part(
        kinds_from_proto(order.inputs),
        None if order.all_outputs else tuple(order.outputs),
        (order.seed, order.number),
        order.scale,
        kinds_from_proto(order.seeds),
        tuple(order.wrt),
        order.tells,
        order.differentiates,
    )


def result_to_proto(result: Result) -> peer_pb2.PartResult:
    """Returns what a part gave, without elements."""
    outputs, inputs = (
        kinds_to_proto({name: (array.dtype, array.shape) for name, array in arrays.items()})
        for arrays in (result.outputs, result.inputs)
    )
    return peer_pb2.PartResult(loss=result.loss, outputs=outputs, parameters=result.parameters, inputs=inputs)


def result_from_proto(
    message: peer_pb2.PartResult, outputs: Mapping[str, Array], inputs: Mapping[str, Array]
) -> Result:
    """Returns what a part gave, of which these are the outputs and the gradients of inputs."""
    loss = message.loss if message.HasField("loss") else None
    return Result(loss, outputs, tuple(message.parameters), inputs)


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
