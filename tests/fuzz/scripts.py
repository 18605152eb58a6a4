"""What clients do with a session, drawn from bytes: calls of which some are wrong, in an order that may be wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tests.fuzz import drawing, draws
from tests.fuzz.calling import Refused, Service
from tests.fuzz.draws import Draw

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.rpc.methods import SERVICE

METHODS = {method.name: GetMessageClass(method.input_type) for method in SERVICE.methods}
TRAINING = (
    *("Forward", "Backward", "Step", "TrainStep", "ZeroGradients", "GetParameters"),
    *("CheckGradients", "DescribeSession"),
)
MOST_ELEMENTS = 4_096


def any_bytes(service: Service, draw: Draw) -> None:
    """A method is given bytes, in one message or in two."""
    method, data = draw.one(list(METHODS)), draw.rest()
    middle = len(data) // 2
    _attempt(service, method, [data[:middle], data[middle:]] if method == "Pipeline" else [data])


def a_graph(service: Service, draw: Draw) -> None:
    """A session is made of any graph, and trained a little."""
    graph = drawing.graph(draw)
    try:
        session = service.create(graph=graph)
    except Refused:
        return
    inputs = _inputs(graph, draw)
    for _ in range(1 + draw.below(4)):
        _attempt(service, *_request(session, draw.one(TRAINING), inputs, draw, damages=0))


def requests(service: Service, draw: Draw) -> None:
    """A session is given requests with anything in their fields."""
    session = service.create()
    for _ in range(1 + draw.below(6)):
        _attempt(service, *_request(session, draw.one(list(METHODS)), _X, draw, damages=draw.below(4)))


def a_stream(service: Service, draw: Draw) -> None:
    """A session is given requests on a Pipeline, with chunks between them."""
    session = service.create()
    messages = []
    for number in range(1 + draw.below(6)):
        request = pb.PipelineRequest(id=number, dependency=draw.below(3), max_response_bytes=draw.one((0, 9, 1 << 20)))  # type: ignore[arg-type]
        kind = draw.one(_KINDS)
        if kind == "chunk":
            drawing.fill(request.chunk, draw, 2)
        else:
            _fill(getattr(request, kind), session, _X, draw, draw.below(3))
        messages.append(request.SerializeToString())
    _attempt(service, "Pipeline", messages)


SCRIPTS: tuple[Callable[[Service, Draw], None], ...] = (any_bytes, a_graph, requests, a_stream)

_KINDS = [field.name for field in pb.PipelineRequest.DESCRIPTOR.oneofs_by_name["kind"].fields]
_X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}


def _attempt(service: Service, method: str, messages: list[bytes]) -> None:
    try:
        service.call(method, messages)
    except Refused:
        return


def _request(
    session: str, method: str, inputs: dict[str, tensor_pb2.Tensor], draw: Draw, damages: int
) -> tuple[str, list[bytes]]:
    request = METHODS[method]()
    _fill(request, session, inputs, draw, damages)
    return method, [request.SerializeToString()]


def _fill(request: Message, session: str, inputs: dict[str, tensor_pb2.Tensor], draw: Draw, damages: int) -> None:
    """Fills a request so that it fits its session, but for `damages`: 0 for none, 3 for many."""
    if damages:
        drawing.fill(request, draw, 2)
    names = request.DESCRIPTOR.fields_by_name
    known: Any = request
    if "session_id" in names and (damages < 3 or draw.below(4)):
        known.session_id = session
    if "forward_id" in names and damages < 2:
        known.forward_id = draw.one(("x", "y"))
    for name in ("inputs", "output_gradients"):
        if name in names:
            for key, value in inputs.items():
                getattr(known, name)[key].CopyFrom(value)
            if damages > 1:
                drawing.fill(getattr(known, name)[draw.one(draws.TEXTS)], draw, 2)


def _inputs(graph: graph_pb2.Graph, draw: Draw) -> dict[str, tensor_pb2.Tensor]:
    """Returns inputs of the graph's own shapes and types, as far as these are small and known."""
    found = {}
    for item in graph.inputs:
        shape = [dim.size if dim.HasField("size") else draw.below(5) for dim in item.shape]
        sizes = np.maximum(np.array(shape, float), 1)  # numpy counts an array without elements as if it had some
        few = all(size >= 0 for size in shape) and len(shape) <= 32 and sizes.prod() <= MOST_ELEMENTS
        if few:
            elements = np.frombuffer(bytes(draw.below(256) for _ in range(8)), np.int8)
            array = np.resize(elements, shape).astype(tensors.dtype_of(item.dtype))
            found[item.name] = tensors.encode(array)
    return found
