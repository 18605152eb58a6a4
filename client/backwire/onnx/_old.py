"""Brings models of the earliest operator sets to where onnx's version converter can take over."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from backwire._arrays import Array
from backwire._errors import GraphError
from backwire.onnx._supported import DEFAULT_DOMAINS

OLDEST_OPSET = 6
"""The first from which models are converted; what changed before that is not converted reliably."""

_RESIZE_HAS_MODES = 11  # the operator set in which Resize says how it finds places; the converter does not
_PRELU_BROADCASTS = 7  # the operator set in which the slope of PRelu broadcasts as numpy does


def changed_operators(nodes: Iterable[onnx.NodeProto], opset: int) -> list[str]:
    """Returns the operators of an older set that `OLDEST_OPSET` has in another form, or not at all."""
    own = {node.op_type for node in nodes if node.domain in DEFAULT_DOMAINS}
    return sorted(op for op in own if not _is_unchanged(op, opset))


def _is_unchanged(op: str, opset: int) -> bool:
    try:
        then, later = (onnx.defs.get_schema(op, version) for version in (opset, OLDEST_OPSET))
    except onnx.defs.SchemaError:
        return False
    return bool(then.since_version == later.since_version)


def spread_slopes(graph: onnx.GraphProto, opset: int) -> None:
    """Gives slopes of PRelu that have an element per channel the axes to broadcast by, in place.

    Types must have been inferred. Raises GraphError when the rank of the other input is unknown.
    """
    if opset >= _PRELU_BROADCASTS:
        return
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for info in (*graph.value_info, *graph.input)
        if info.type.tensor_type.HasField("shape")
    }
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type == "PRelu" and sizes.get(node.input[1]) != [1]:
            if node.input[0] not in ranks:
                raise GraphError(
                    f"node {index}, PRelu {node.name or node.output[0]!r}: its slope is per channel, but the rank of "
                    f"its input is unknown; export the model again with operator set {_PRELU_BROADCASTS} or a newer one"
                )
            if axes := list(range(1, ranks[node.input[0]] - 1)):
                spread = f"{node.output[0]}_slope"
                graph.node.insert(index, helper.make_node("Unsqueeze", [node.input[1]], [spread], axes=axes))
                graph.node[index + 1].input[1] = spread


def name_resize_modes(graph: onnx.GraphProto, opset: int) -> None:
    """Gives each Resize of a model of that operator set, already converted, what it then did without saying, in place.

    Element i came from i / scale, in the mode nearest rounded down, or up along an axis that shrank. Raises GraphError
    when some axes grow and others shrink, since a newer Resize rounds all of them in one way.
    """
    if opset >= _RESIZE_HAS_MODES:
        return
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    known.update((node.output[0], _value(node)) for node in graph.node if node.op_type == "Constant")
    for index, node in enumerate(graph.node):
        if node.op_type == "Resize":
            mode = _rounding(node, known, f"node {index}, Resize {node.name or node.output[0]!r}")
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", mode))


def _value(node: onnx.NodeProto) -> Array:
    value = helper.get_attribute_value(node.attribute[0])
    return np.asarray(numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)


def _rounding(node: onnx.NodeProto, known: Mapping[str, Array], what: str) -> str:
    scales = known.get(node.input[2], np.ones(1))
    nearest = all(item.name != "mode" or item.s == b"nearest" for item in node.attribute)
    if not nearest or np.all(scales >= 1):
        return "floor"
    if np.all(scales <= 1):
        return "ceil"
    raise GraphError(
        f"{what} grows along some axes and shrinks along others, to the nearest element, which operator sets from "
        f"{_RESIZE_HAS_MODES} on do in two nodes; resize in two nodes, or export the model again with a newer one"
    )
