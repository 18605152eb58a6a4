"""Graphs from messages, with the path of whatever is wrong in them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_server.engine.dims import Dim, Symbolic
from backwire_server.engine.errors import GraphError, InvalidAttribute
from backwire_server.engine.graph import Array, Attribute, Graph, Input, Node, Parameter, TensorType
from backwire_server.messages.tensor_limits import check_graph_tensors
from backwire_server.sessions.errors import GraphTooLarge, InvalidTensor, UnsupportedOpset
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import Source
from backwire_server.sessions.training.initializers import Distribution, Initializer

OPSETS = range(18, 29)
"""The versions of the ONNX operator set whose semantics the engine's operators have.

18 is the first in which every operator here that works on axes takes them as an input: the reductions were the last to
change. Up to 28, the newest, they gained only element types and optional attributes. The exception is
GroupNormalization, whose scale and bias were per group before 21: in such a shape they are refused.
"""

EDGES_PER_NODE = 16  # on average: the most names and attributes of all nodes together, per node of the limit

_DISTRIBUTIONS = {
    graph_pb2.Initializer.DISTRIBUTION_CONSTANT: Distribution.CONSTANT,
    graph_pb2.Initializer.DISTRIBUTION_UNIFORM: Distribution.UNIFORM,
    graph_pb2.Initializer.DISTRIBUTION_NORMAL: Distribution.NORMAL,
    graph_pb2.Initializer.DISTRIBUTION_GLOROT_UNIFORM: Distribution.GLOROT_UNIFORM,
    graph_pb2.Initializer.DISTRIBUTION_GLOROT_NORMAL: Distribution.GLOROT_NORMAL,
    graph_pb2.Initializer.DISTRIBUTION_HE_UNIFORM: Distribution.HE_UNIFORM,
    graph_pb2.Initializer.DISTRIBUTION_HE_NORMAL: Distribution.HE_NORMAL,
    graph_pb2.Initializer.DISTRIBUTION_ORTHOGONAL: Distribution.ORTHOGONAL,
    graph_pb2.Initializer.DISTRIBUTION_TRUNCATED_NORMAL: Distribution.TRUNCATED_NORMAL,
}

_ATTRIBUTES: Mapping[str, Callable[[Any], Attribute]] = {
    "integer": int,
    "number": float,
    "text": str,
    "integers": lambda value: tuple(value.items),
    "numbers": lambda value: tuple(value.items),
    "texts": lambda value: tuple(value.items),
    "tensor": tensors.decode,
}


def graph_from_proto(message: graph_pb2.Graph, limits: Limits) -> tuple[Graph, dict[str, Source]]:
    """Returns the graph, and where the first value of each parameter comes from.

    Raises GraphTooLarge before anything is converted, UnsupportedOpset, and GraphError, InvalidAttribute or
    InvalidTensor with a field such as `graph.nodes[3].attributes[axis]`.
    """
    _check_size(message, limits)
    check_graph_tensors(message, limits)
    if message.opset_version and message.opset_version not in OPSETS:
        raise UnsupportedOpset(
            f"operator set {message.opset_version} is not implemented; convert the model to {OPSETS[0]}-{OPSETS[-1]}",
            field="graph.opset_version",
        )
    parameters, sources = _parameters(message)
    graph = Graph(
        inputs=tuple(_input(item, f"graph.inputs[{i}]") for i, item in enumerate(message.inputs)),
        parameters=parameters,
        constants=_constants(message),
        nodes=tuple(_node(item, f"graph.nodes[{i}]") for i, item in enumerate(message.nodes)),
        outputs=dict(message.outputs),
        loss=message.loss or None,
        updates=dict(message.updates),
    )
    return graph, sources


def tensor_from_proto(message: tensor_pb2.Tensor, path: str) -> Array:
    """Returns the array, read-only; raises InvalidTensor with this path as its field."""
    with _at(path):
        return tensors.decode(message)


def _check_size(message: graph_pb2.Graph, limits: Limits) -> None:
    edges = sum(len(node.inputs) + len(node.outputs) + len(node.attributes) for node in message.nodes)
    for field, count, limit, quota in (
        ("nodes", len(message.nodes), limits.max_graph_nodes, "max_graph_nodes"),
        ("inputs", len(message.inputs), limits.max_graph_nodes, "max_graph_nodes"),
        ("constants", len(message.constants), limits.max_graph_nodes, "max_graph_nodes"),
        ("outputs", len(message.outputs), limits.max_graph_nodes, "max_graph_nodes"),
        ("updates", len(message.updates), limits.max_parameters, "max_parameters"),
        ("nodes", edges, limits.max_graph_nodes * EDGES_PER_NODE, "max_graph_nodes"),
        ("parameters", len(message.parameters), limits.max_parameters, "max_parameters"),
    ):
        if count > limit:
            what = "names and attributes of nodes" if count is edges else field
            raise GraphTooLarge(
                f"the graph has {count:,} {what}, but may have {limit:,}; use a smaller graph",
                field=f"graph.{field}",
                quota=quota,
            )


def _input(message: graph_pb2.Input, path: str) -> Input:
    dims = tuple(_dim(dim, f"{path}.shape[{i}]") for i, dim in enumerate(message.shape))
    with _at(f"{path}.shape"):
        tensors.byte_count(np.dtype(np.int8), [dim if isinstance(dim, int) else 1 for dim in dims])
    return Input(message.name, TensorType(_dtype(message.dtype, f"{path}.dtype"), dims))


def _dim(message: graph_pb2.Dimension, path: str) -> Dim:
    kind = message.WhichOneof("kind")
    if kind == "size":
        return message.size
    if kind is None or not message.symbol:
        raise GraphError("a dimension needs a size, or a symbol that is not empty; set one", field=path)
    return Symbolic.of(message.symbol)


def _parameters(message: graph_pb2.Graph) -> tuple[tuple[Parameter, ...], dict[str, Source]]:
    parameters, sources = [], {}
    for index, item in enumerate(message.parameters):
        path = f"graph.parameters[{index}]"
        source = _source(item, path)
        parameters.append(Parameter(item.name, TensorType(source.dtype, source.shape), item.frozen))
        sources[item.name] = source
    return tuple(parameters), sources


def _source(message: graph_pb2.Parameter, path: str) -> Source:
    match message.WhichOneof("source"):
        case "value":
            return tensor_from_proto(message.value, f"{path}.value")
        case "initializer":
            return _initializer(message.initializer, f"{path}.initializer")
    raise GraphError(f"parameter {message.name!r} has no first value; set value or initializer", field=path)


def _initializer(message: graph_pb2.Initializer, path: str) -> Initializer:
    if message.distribution not in _DISTRIBUTIONS:
        raise GraphError("the distribution is unknown; set one", field=f"{path}.distribution")
    dtype = _dtype(message.dtype, f"{path}.dtype")
    with _at(f"{path}.shape"):
        tensors.byte_count(dtype, message.shape)
    given = {name: getattr(message, name) for name in ("gain", "location", "scale") if message.HasField(name)}
    with _at(path):
        return Initializer(
            dtype, tuple(message.shape), _DISTRIBUTIONS[message.distribution], unit_axis=message.unit_axis, **given
        )


def _constants(message: graph_pb2.Graph) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    for index, item in enumerate(message.constants):
        path = f"graph.constants[{index}]"
        if item.name in constants:
            raise GraphError(f"value {item.name!r} is defined twice; rename one of them", field=f"{path}.name")
        constants[item.name] = tensor_from_proto(item.value, f"{path}.value")
    return constants


def _node(message: graph_pb2.Node, path: str) -> Node:
    attributes = {
        name: _attribute(value, f"{path}.attributes[{name}]") for name, value in sorted(message.attributes.items())
    }
    return Node(message.op, tuple(message.inputs), tuple(message.outputs), attributes, message.name)


def _attribute(message: graph_pb2.Attribute, path: str) -> Attribute:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidAttribute("the attribute has no value; set one", field=path)
    with _at(path):
        return _ATTRIBUTES[kind](getattr(message, kind))


def _dtype(number: int, path: str) -> np.dtype[Any]:
    with _at(path):
        return tensors.dtype_of(number)


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Gives errors their place: TensorError becomes InvalidTensor, and a relative field is completed."""
    try:
        yield
    except tensors.TensorError as error:
        raise InvalidTensor(str(error), field=path) from None
    except GraphError as error:
        raise GraphError(str(error), field=f"{path}.{error.field}") from None
