"""What the server says of a session: the graph that it trains, and what a pass takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backwire._builder._graph import Graph
from backwire._errors import InvalidRequestError
from backwire._info import SessionInfo
from backwire._inspection import GraphDescription
from backwire._wire import _messages
from backwire._wire._inspection_messages import graph_description, tensor_shapes
from backwire._wire._messages import Arrays
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.wire import Framed

MOST_PASSES = 1_000


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What a session trains, and what a pass of it takes.

    Attributes:
        graph: The graph, to look at: without the values of parameters and of constants above 1,024 bytes.
        description: What a pass takes, for the shapes that were given; None where none were, and sizes are open.
        forward_seconds: The time of a forward pass in train mode, the median of all measured ones; 0 where none was.
        backward_seconds: That of a backward pass.
    """

    graph: Graph
    description: GraphDescription | None
    forward_seconds: float
    backward_seconds: float


def describe_request(
    session: SessionInfo, inputs: Arrays, shapes: Mapping[str, Sequence[int]], passes: int
) -> Framed[service_pb2.DescribeSessionRequest]:
    """Returns the request; raises InvalidRequestError for a number of passes that is wrong."""
    if not 0 <= passes <= MOST_PASSES:
        raise InvalidRequestError(f"passes={passes} is not 0 to {MOST_PASSES:,}; use 10", field="passes")
    message = service_pb2.DescribeSessionRequest(
        session_id=session.id, input_shapes=tensor_shapes(shapes), passes=passes
    )
    return Framed(message, _messages.encode_inputs(session, inputs))


def session_description(message: service_pb2.DescribeSessionResponse) -> SessionDescription:
    """Returns the message as data."""
    return SessionDescription(
        graph=Graph(message.graph),
        description=graph_description(message.description) if message.HasField("description") else None,
        forward_seconds=message.forward_seconds,
        backward_seconds=message.backward_seconds,
    )
