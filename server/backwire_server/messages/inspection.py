"""What is asked and answered about graphs, operators and gradients."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2
from backwire_server.engine.catalog import Entry
from backwire_server.engine.check import GradientCheck
from backwire_server.engine.describe import NodeWork
from backwire_server.engine.dims import concrete
from backwire_server.engine.graph import Attribute, TensorType
from backwire_server.engine.operators import REQUIRED
from backwire_server.engine.profile import NodeTime, Profile
from backwire_server.messages.calls import RawTensors, arrays_from_proto
from backwire_server.messages.graph import graph_from_proto
from backwire_server.messages.optimizer import optimizer_from_proto
from backwire_server.messages.precisions import precision_of
from backwire_server.sessions.calls import CheckCall, DescribeCall
from backwire_server.sessions.describing import MadeSession, SessionDescription
from backwire_server.sessions.errors import InvalidTensor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec

TOLD_BYTES = 1_024  # the most data of a constant that is told with the graph of a session
MOST = (1 << 63) - 1  # what an int64 can say; a graph may expand a value to more


def graph_to_describe(
    request: pb.DescribeGraphRequest, limits: Limits
) -> tuple[SessionSpec, dict[str, tuple[int, ...]]]:
    """Returns what a session would be made from, and the shapes of its inputs; raises what `session_spec` raises.

    A shape that no tensor can have is InvalidTensor.
    """
    graph, sources = graph_from_proto(request.graph, limits)
    optimizer = optimizer_from_proto(request.optimizer) if request.HasField("optimizer") else None
    graph = replace(graph, precision=precision_of(request.precision))
    return SessionSpec(graph, sources, optimizer), _shapes(request.input_shapes)


def description_to_proto(found: SessionDescription, profile: Profile | None = None) -> pb.DescribeGraphResponse:
    """Returns the message, with the times of a profile if there is one; figures that an int64 cannot hold are cut."""
    response = pb.DescribeGraphResponse(
        values=_values(found.graph.values),
        outputs=_values(found.graph.outputs),
        parameter_count=found.parameter_count,
        trainable_count=found.trainable_count,
        parameter_bytes=found.parameter_bytes,
        state_bytes=found.state_bytes,
        forward_flops=min(found.graph.forward_flops, MOST),
        backward_flops=min(found.graph.backward_flops, MOST),
        pass_bytes=min(found.graph.pass_bytes, MOST),
        peak_bytes=min(found.graph.peak_bytes, MOST),
        nodes=_nodes(found.graph.nodes, profile.nodes if profile else {}),
        forward=pb.WireBytes(request=found.input_bytes, response=min(found.output_bytes + found.loss_bytes, MOST)),
    )
    if found.loss_bytes:
        response.train_step.CopyFrom(pb.WireBytes(request=found.input_bytes, response=found.loss_bytes))
    return response


def describe_call(request: pb.DescribeSessionRequest, given: RawTensors) -> DescribeCall:
    """Returns what DescribeSession is asked for; a shape that no tensor can have is InvalidTensor."""
    return DescribeCall(arrays_from_proto(given, "inputs"), _shapes(request.input_shapes), request.passes)


def made_to_proto(found: MadeSession) -> pb.DescribeSessionResponse:
    """Returns the message, with as much of the graph as the contract says."""
    profile = found.profile
    response = pb.DescribeSessionResponse(graph=_hollow(pb.CreateSessionRequest.FromString(found.outline).graph))
    if found.described is not None:
        response.description.CopyFrom(description_to_proto(found.described, profile))
    if profile is not None:
        response.forward_seconds, response.backward_seconds = profile.forward_seconds, profile.backward_seconds
    return response


def op_to_proto(entry: Entry) -> pb.OpInfo:
    """Returns the message."""
    return pb.OpInfo(
        name=entry.name,
        doc=entry.doc,
        inputs=[pb.OpInput(name=name, optional=optional) for name, optional in entry.inputs.items()],
        variadic=entry.variadic,
        attributes=[_attribute(name, default) for name, default in entry.attributes.items()],
        outputs=entry.outputs,
        differentiable=entry.differentiable,
    )


def check_call(request: pb.CheckGradientsRequest, given: RawTensors) -> CheckCall:
    """Returns what CheckGradients is asked for."""
    inputs = arrays_from_proto(given, "inputs")
    return CheckCall(inputs, tuple(request.names), request.max_elements, request.seed)


def check_response(found: GradientCheck) -> pb.CheckGradientsResponse:
    """Returns the answer to CheckGradients."""
    parameters = [
        pb.ParameterCheck(
            name=each.name,
            checked=each.checked,
            worst_error=each.error,
            worst_index=each.index,
            gradient=each.gradient,
            difference=each.difference,
        )
        for each in found.parameters
    ]
    return pb.CheckGradientsResponse(parameters=parameters, dtype=tensors.data_type_of(found.dtype), loss=found.loss)


def _shapes(given: Mapping[str, pb.TensorShape]) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(shape.sizes) for name, shape in sorted(given.items())}
    for name, shape in shapes.items():
        try:
            tensors.byte_count(np.dtype(np.int8), shape)
        except tensors.TensorError as error:
            raise InvalidTensor(str(error), field=f"input_shapes[{name}]") from None
    return shapes


def _hollow(graph: graph_pb2.Graph) -> graph_pb2.Graph:
    """Takes the data of parameters and of large constants out of a graph, and returns it."""
    for parameter in graph.parameters:
        if parameter.WhichOneof("source") == "value":
            parameter.value.ClearField("data")
    for constant in graph.constants:
        if len(constant.value.data) > TOLD_BYTES:
            constant.value.ClearField("data")
    return graph


def _nodes(work: Mapping[str, NodeWork], times: Mapping[str, NodeTime]) -> Iterator[pb.NodeCost]:
    for name, each in work.items():
        time = times.get(name, NodeTime(0.0, 0.0))
        yield pb.NodeCost(
            output=name,
            forward_flops=min(each.forward, MOST),
            backward_flops=min(each.backward, MOST),
            forward_seconds=time.forward,
            backward_seconds=time.backward,
        )


def _values(types: Mapping[str, TensorType]) -> Iterator[pb.ValueInfo]:
    for name, type_ in types.items():
        yield pb.ValueInfo(name=name, dtype=tensors.data_type_of(type_.dtype), shape=concrete(type_.shape))


def _attribute(name: str, default: Any) -> pb.OpAttribute:
    message = pb.OpAttribute(name=name, required=default is REQUIRED)
    if default is not REQUIRED and default is not None:
        message.default.CopyFrom(_attribute_value(default))
    return message


def _attribute_value(value: Attribute) -> graph_pb2.Attribute:
    match value:
        case int():
            return graph_pb2.Attribute(integer=value)
        case float():
            return graph_pb2.Attribute(number=value)
        case str():
            return graph_pb2.Attribute(text=value)
        case np.ndarray():
            return graph_pb2.Attribute(tensor=tensors.encode(value))
    return _list_value(value)


def _list_value(items: tuple[Any, ...]) -> graph_pb2.Attribute:
    if any(isinstance(item, str) for item in items):
        return graph_pb2.Attribute(texts=graph_pb2.Attribute.Texts(items=items))
    if any(isinstance(item, float) for item in items):
        return graph_pb2.Attribute(numbers=graph_pb2.Attribute.Numbers(items=items))
    return graph_pb2.Attribute(integers=graph_pb2.Attribute.Integers(items=items))
