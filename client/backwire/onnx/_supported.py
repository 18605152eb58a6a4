"""Finds everything in a model that a graph cannot hold. Which operators exist is for the server to say."""

from collections.abc import Iterator

import onnx

from backwire._errors import GraphError
from backwire.onnx import _tensors

DEFAULT_DOMAINS = ("", "ai.onnx")
GRADIENT = "Gradient"
"""The operator that differentiates within a graph."""

PREVIEWS = {GRADIENT: "ai.onnx.preview.training", "FlexAttention": "ai.onnx.preview"}
"""The operators of other domains that there are, each with its domain."""

_OUT_OF_SCOPE = {
    "ImageDecoder": "it decodes images",
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), "it is about optionals"),
    **dict.fromkeys(
        (
            *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
            *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
        ),
        "it is quantised",
    ),
}
"""Operators that no server will have, with the reason. The others that there are none of, their types give away."""

_KINDS = onnx.AttributeProto
_SUBGRAPHS = (_KINDS.GRAPH, _KINDS.GRAPHS)
_ATTRIBUTES = (
    _KINDS.INT,
    _KINDS.FLOAT,
    _KINDS.STRING,
    _KINDS.TENSOR,
    _KINDS.INTS,
    _KINDS.FLOATS,
    _KINDS.STRINGS,
)
_CONTAINERS = {
    "sequence_type": "a sequence",
    "optional_type": "an optional",
    "map_type": "a map",
    "sparse_tensor_type": "a sparse tensor",
}


def check(model: onnx.ModelProto) -> None:
    """Raises one GraphError that lists all nodes and values of a model that are not supported, each with the reason.

    The model should have gone through shape inference, or types of values between nodes are not seen.
    """
    problems = [*_in_declarations(model.graph), *_in_nodes(model.graph)]
    if problems:
        count = f"{len(problems)} parts of the model are" if len(problems) > 1 else "one part of the model is"
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise GraphError(f"{count} not supported; export the model without:{listed}")


def _in_declarations(graph: onnx.GraphProto) -> Iterator[str]:
    for kind, infos in (("input", graph.input), ("output", graph.output)):
        for info in infos:
            if reason := _of_type(info.type):
                yield f"{kind} {info.name!r}: it is {reason}"
    for tensor in graph.initializer:
        if _tensors.dtype_of(tensor.data_type) is None:
            yield f"initializer {tensor.name!r}: it is a tensor of {_type_name(tensor.data_type)}"
    for sparse in graph.sparse_initializer:
        yield f"initializer {sparse.values.name!r}: it is a sparse tensor"


def _in_nodes(graph: onnx.GraphProto) -> Iterator[str]:
    types = {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output)}
    for index, node in enumerate(graph.node):
        where = f"node {index}, {node.op_type} {node.name or next(filter(None, node.output), '')!r}"
        reasons = [*_of_node(node)]
        reasons += [
            f"{name!r} is {reason}"
            for name in dict.fromkeys((*node.input, *node.output))
            if name in types and (reason := _of_type(types[name]))
        ]
        if reasons:
            yield f"{where}: {'; '.join(reasons)}"


def _of_node(node: onnx.NodeProto) -> Iterator[str]:
    if node.domain not in DEFAULT_DOMAINS and node.domain != PREVIEWS.get(node.op_type):
        yield f"it is of the domain {node.domain!r}, not of the ONNX operator set"
    elif node.op_type in _OUT_OF_SCOPE:
        yield _OUT_OF_SCOPE[node.op_type]
    elif node.op_type not in PREVIEWS and not onnx.defs.has(node.op_type):
        yield "ONNX has no operator of that name"
    for attribute in node.attribute:
        if attribute.type in _SUBGRAPHS:
            yield f"attribute {attribute.name!r} is a graph: control flow"
        elif attribute.ref_attr_name or attribute.type not in _ATTRIBUTES:
            kind = _KINDS.AttributeType.Name(attribute.type).lower().replace("_", " ")
            yield f"attribute {attribute.name!r} is a {kind}"
        elif attribute.type == _KINDS.TENSOR and _tensors.dtype_of(attribute.t.data_type) is None:
            yield f"attribute {attribute.name!r} is a tensor of {_type_name(attribute.t.data_type)}"
        elif node.op_type == "Constant" and attribute.type in (_KINDS.STRING, _KINDS.STRINGS):
            yield "it is a text"


def _of_type(type_: onnx.TypeProto) -> str:
    """Returns what the type is when it is none that a value can have, and an empty text for one that is fine."""
    kind = type_.WhichOneof("value")
    if kind in _CONTAINERS:
        return _CONTAINERS[kind]
    number = type_.tensor_type.elem_type
    if kind != "tensor_type" or number == onnx.TensorProto.UNDEFINED or _tensors.dtype_of(number):
        return ""
    return f"a tensor of {_type_name(number)}"


def _type_name(number: int) -> str:
    return onnx.TensorProto.DataType.Name(number).lower()
