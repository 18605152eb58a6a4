"""Sessions, as the contract tells them."""

from dataclasses import replace

from backwire_api.tensors import data_type_of
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.engine.dims import Dim
from backwire_server.engine.graph import Input, Parameter
from backwire_server.messages.durability import durability_to_proto, lease_to_proto
from backwire_server.messages.executors import executor_of, executor_to_proto
from backwire_server.messages.graph import graph_from_proto
from backwire_server.messages.optimizer import optimizer_from_proto, optimizer_to_proto
from backwire_server.messages.precisions import precision_of, precision_to_proto
from backwire_server.sessions.info import SessionInfo
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.parameters import shape_of

_DRAWN = {tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_FLOAT64}
"""The types of parameters that can have a rule for their first value."""


def session_spec(request: pb.CreateSessionRequest, limits: Limits) -> SessionSpec:
    """Returns what to make a session from; raises what the functions for its parts raise.

    Its definition is the request without `request_id` and `durability`: they say how this session came to be made and
    is kept, and another may be made of the rest. They are taken out of the message, and so are first values.
    """
    graph, sources = graph_from_proto(request.graph, limits)
    optimizer = optimizer_from_proto(request.optimizer) if request.HasField("optimizer") else None
    for field in ("request_id", "durability"):
        request.ClearField(field)
    executor = executor_of(request.executor)
    if (precision := precision_of(request.precision)) != graph.precision:
        graph = replace(graph, precision=precision)
    definition = request.SerializeToString()
    for parameter in request.graph.parameters:
        if parameter.WhichOneof("source") == "value" and parameter.value.dtype in _DRAWN:
            rule = graph_pb2.Initializer(dtype=parameter.value.dtype, shape=parameter.value.shape)
            rule.distribution = graph_pb2.Initializer.DISTRIBUTION_CONSTANT
            parameter.initializer.CopyFrom(rule)
    staleness = request.max_staleness if request.HasField("max_staleness") else None
    outline = request.SerializeToString()
    return SessionSpec(
        graph,
        sources,
        optimizer,
        request.seed,
        definition,
        outline,
        max_staleness=staleness,
        executor=executor,
        data_parallel=request.data_parallel,
    )


def session_to_proto(info: SessionInfo) -> pb.Session:
    """Returns the message, with the defaults of the optimizer filled in."""
    message = pb.Session(
        session_id=info.session_id,
        step=info.step,
        contributions=info.contributions,
        inputs=[_input(item) for item in info.inputs],
        parameters=[_parameter(item) for item in info.parameters],
        outputs=info.outputs,
        has_loss=info.has_loss,
        optimizer=None if info.optimizer is None else optimizer_to_proto(info.optimizer),
        seed=info.seed,
        limits=_limits(info.limits),
        forward_ids=info.forward_ids,
        address=info.address,
        durability=durability_to_proto(info.durability),
        lease=None if info.lease is None else lease_to_proto(info.lease),
        max_staleness=info.max_staleness,
        executor=executor_to_proto(info.executor),
        data_parallel=info.data_parallel,
        precision=precision_to_proto(info.precision),
    )
    message.create_time.FromNanoseconds(int(info.created * 1e9))
    message.last_use_time.FromNanoseconds(int(info.last_used * 1e9))
    return message


def _limits(limits: Limits) -> pb.SessionLimits:
    message = pb.SessionLimits(
        max_message_bytes=limits.max_message_bytes,
        max_passes=limits.max_passes,
        max_pass_bytes=limits.max_pass_bytes,
        max_pipeline_bytes=limits.max_pipeline_bytes,
    )
    message.pass_ttl.FromNanoseconds(int(limits.pass_ttl * 1e9))
    if limits.idle_ttl is not None:
        message.idle_ttl.FromNanoseconds(int(limits.idle_ttl * 1e9))
    return message


def _input(item: Input) -> graph_pb2.Input:
    shape = [_dimension(dim) for dim in item.type.shape]
    return graph_pb2.Input(name=item.name, dtype=data_type_of(item.type.dtype), shape=shape)


def _dimension(dim: Dim) -> graph_pb2.Dimension:
    return graph_pb2.Dimension(size=dim) if isinstance(dim, int) else graph_pb2.Dimension(symbol=str(dim))


def _parameter(item: Parameter) -> pb.ParameterInfo:
    return pb.ParameterInfo(
        name=item.name, dtype=data_type_of(item.type.dtype), shape=shape_of(item), frozen=item.frozen
    )
