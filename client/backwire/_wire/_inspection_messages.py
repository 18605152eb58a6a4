"""Builds requests about graphs, operators and gradients, and reads what the server answers."""

from collections.abc import Mapping, Sequence

from backwire._builder._graph import Graph
from backwire._errors import InvalidRequestError
from backwire._info import SessionInfo
from backwire._inspection import (
    AttributeValue,
    GradientCheck,
    GraphDescription,
    NodeCost,
    OpAttribute,
    OpInfo,
    OpInput,
    ParameterCheck,
    ValueInfo,
    WireBytes,
)
from backwire._training._optimizers import Optimizer
from backwire._wire import _message_fields, _messages, _parameter_messages
from backwire._wire._messages import Arrays
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.v1 import graph_pb2
from backwire_api.wire import Framed


def describe_request(
    graph: Graph,
    input_shapes: Mapping[str, Sequence[int]],
    optimizer: Optimizer | None,
    precision: service_pb2.Precision.ValueType,
) -> service_pb2.DescribeGraphRequest:
    """Returns the request."""
    return service_pb2.DescribeGraphRequest(
        graph=graph.proto,
        input_shapes=tensor_shapes(input_shapes),
        optimizer=None if optimizer is None else optimizer.to_proto(),
        precision=precision,
    )


def tensor_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, service_pb2.TensorShape]:
    """Returns the messages."""
    return {name: service_pb2.TensorShape(sizes=shape) for name, shape in shapes.items()}


def check_request(
    session: SessionInfo, inputs: Arrays, parameters: Sequence[str] | None, max_elements: int, seed: int
) -> Framed[service_pb2.CheckGradientsRequest]:
    """Returns the request; raises InvalidRequestError, or UnknownNameError for a parameter that is not trainable."""
    if not 0 < max_elements < 2**31:
        raise InvalidRequestError(f"max_elements={max_elements} is not above 0; use 64", field="max_elements")
    seed = _message_fields.whole("seed", seed, 64)
    names, _ = _parameter_messages.selected_parameters(session, parameters, trainable=True)
    message = service_pb2.CheckGradientsRequest(
        session_id=session.id, names=names, max_elements=max_elements, seed=seed
    )
    return Framed(message, _messages.encode_inputs(session, inputs))


def graph_description(message: service_pb2.DescribeGraphResponse) -> GraphDescription:
    """Returns the message as data."""
    figures = ("parameter_count", "trainable_count", "parameter_bytes", "state_bytes")
    costs = ("forward_flops", "backward_flops", "pass_bytes", "peak_bytes")
    return GraphDescription(
        values=_values(message.values),
        outputs=_values(message.outputs),
        **{name: getattr(message, name) for name in (*figures, *costs)},
        forward=_wire_bytes(message.forward),
        train_step=_wire_bytes(message.train_step) if message.HasField("train_step") else None,
        nodes={each.output: _node_cost(each) for each in message.nodes},
    )


def op_infos(message: service_pb2.ListOpsResponse) -> dict[str, OpInfo]:
    """Returns the message as data."""
    return {each.name: _op_info(each) for each in message.ops}


def gradient_check(message: service_pb2.CheckGradientsResponse) -> GradientCheck:
    """Returns the message as data."""
    checks = {
        each.name: ParameterCheck(
            each.name, each.checked, each.worst_error, tuple(each.worst_index), each.gradient, each.difference
        )
        for each in message.parameters
    }
    return GradientCheck(checks, tensors.dtype_of(message.dtype), message.loss)


def _values(messages: Sequence[service_pb2.ValueInfo]) -> dict[str, ValueInfo]:
    return {each.name: ValueInfo(each.name, tensors.dtype_of(each.dtype), tuple(each.shape)) for each in messages}


def _node_cost(message: service_pb2.NodeCost) -> NodeCost:
    return NodeCost(message.forward_flops, message.backward_flops, message.forward_seconds, message.backward_seconds)


def _wire_bytes(message: service_pb2.WireBytes) -> WireBytes:
    return WireBytes(message.request, message.response)


def _op_info(message: service_pb2.OpInfo) -> OpInfo:
    return OpInfo(
        name=message.name,
        doc=message.doc,
        inputs=tuple(OpInput(each.name, each.optional) for each in message.inputs),
        variadic=message.variadic,
        attributes=tuple(_attribute(each) for each in message.attributes),
        outputs=message.outputs,
        differentiable=message.differentiable,
    )


def _attribute(message: service_pb2.OpAttribute) -> OpAttribute:
    default = _attribute_value(message.default) if message.HasField("default") else None
    return OpAttribute(message.name, message.required, default)


def _attribute_value(message: graph_pb2.Attribute) -> AttributeValue:
    kind = message.WhichOneof("kind")
    value = getattr(message, kind or "integer")
    if kind == "tensor":
        return tensors.decode(value)
    return tuple(value.items) if kind in ("integers", "numbers", "texts") else value
