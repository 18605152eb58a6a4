"""What a graph takes and what it keeps: parameters become inputs, and inputs become frozen parameters."""

from collections.abc import Collection, Mapping

from numpy.typing import ArrayLike

from backwire import _arrays
from backwire._builder._graph import Graph
from backwire._errors import MissingInputError, UnknownNameError
from backwire_api import tensors
from backwire_api.v1 import graph_pb2


def trainable(graph: Graph) -> list[str]:
    """Returns the names of the parameters that steps change, in the graph's order."""
    return [each.name for each in graph.proto.parameters if not each.frozen]


def chosen(graph: Graph, given: Collection[str]) -> list[str]:
    """Returns the parameters that steps change, or for a graph without any the inputs that are not given."""
    return trainable(graph) or [each.name for each in graph.proto.inputs if each.name not in given]


def as_inputs(graph: Graph, names: Collection[str]) -> Graph:
    """Returns the graph with these parameters as inputs of the same names, element types and shapes, after its own."""
    proto = graph_pb2.Graph()
    proto.CopyFrom(graph.proto)
    del proto.parameters[:]
    for each in graph.proto.parameters:
        if each.name not in names:
            proto.parameters.append(each)
            continue
        typed = each.value if each.HasField("value") else each.initializer
        shape = [graph_pb2.Dimension(size=size) for size in typed.shape]
        proto.inputs.append(graph_pb2.Input(name=each.name, dtype=typed.dtype, shape=shape))
    return Graph(proto)


def as_parameters(graph: Graph, values: Mapping[str, ArrayLike]) -> Graph:
    """Returns the graph with these inputs as frozen parameters, which are sent once, with the graph.

    Raises:
        UnknownNameError: The graph has no input of such a name.
        DTypeError: A value cannot become what the input is declared as.
    """
    known = {each.name: each for each in graph.proto.inputs}
    proto = graph_pb2.Graph()
    proto.CopyFrom(graph.proto)
    del proto.inputs[:]
    for name, value in values.items():
        if name not in known:
            raise UnknownNameError(f"the graph has no input {name!r}; it has {_listed(known)}", field=f"inputs[{name}]")
        array = _arrays.convert(value, tensors.dtype_of(known[name].dtype), f"input {name!r}")
        proto.parameters.append(graph_pb2.Parameter(name=name, frozen=True, value=tensors.encode(array)))
    proto.inputs.extend(each for name, each in known.items() if name not in values)
    return Graph(proto)


def check_inputs(graph: Graph, names: Collection[str]) -> None:
    """Raises MissingInputError unless these are all inputs of the graph."""
    missing = [each.name for each in graph.proto.inputs if each.name not in names]
    if missing:
        raise MissingInputError(
            f"the graph has inputs that are neither given nor varied: {_listed(missing)}; give an array for each",
            field=f"inputs[{missing[0]}]",
        )


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
