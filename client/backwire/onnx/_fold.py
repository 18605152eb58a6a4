"""Folds away the sequences that exporters make of a split: SplitToSequence, and SequenceAt with constant positions."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from backwire._arrays import Array
from backwire.onnx import _tensors

_SPLIT_TAKES_INPUTS = 13  # the operator set in which Split and Squeeze take sizes and axes as inputs


def fold_sequences(graph: onnx.GraphProto, opset: int) -> bool:
    """Replaces such splits by Split and Identity or Squeeze, in place, and tells whether it found any.

    When it did, infer shapes and call it again: sizes that were unknown may be known then. A sequence stays as it is
    when anything but a look-up takes it, when a position is no constant, or when its sizes are neither constants nor
    follow from the shape that inference found.
    """
    known = dict(constants(graph))
    types = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.input, *graph.output)}
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for index, node in enumerate(graph.node):
        if node.op_type != "SplitToSequence":
            continue
        lookups = _lookups(graph, node.output[0], known)
        sizes = _sizes(node, known, types.get(node.input[0]))
        if lookups and sizes and all(-len(sizes) <= at < len(sizes) for at in lookups.values()):
            squeezed = len(node.input) < 2 and _attribute(node, "keepdims", 1) == 0
            replaced[index] = _split(node, sizes, opset)
            for place, at in lookups.items():
                part = f"{node.output[0]}_{at % len(sizes)}"
                replaced[place] = _part(node, part, graph.node[place].output[0], opset, squeezed=squeezed)
    if replaced:
        nodes = [new for index, node in enumerate(graph.node) for new in replaced.get(index, [node])]
        sequences = {graph.node[index].output[0] for index in replaced}
        infos = [info for info in graph.value_info if info.name not in sequences]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.value_info.extend(infos)
    return bool(replaced)


def constants(graph: onnx.GraphProto) -> Iterator[tuple[str, Array]]:
    """Yields the names and elements of what is constant in a graph and may be a size, a position or a condition."""
    for tensor in graph.initializer:
        if tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL):
            yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name in ("value", "value_int", "value_ints"):
            value = helper.get_attribute_value(node.attribute[0])
            yield (
                node.output[0],
                numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value),
            )


def _lookups(graph: onnx.GraphProto, sequence: str, constants: Mapping[str, Array]) -> dict[int, int]:
    """Returns the position that each node looks up by the node's index; empty unless all takers are such look-ups."""
    found: dict[int, int] = {}
    for index, node in enumerate(graph.node):
        if sequence in node.input:
            if node.op_type != "SequenceAt" or node.input[1] not in constants:
                return {}
            found[index] = int(constants[node.input[1]].reshape(()))
    return {} if any(info.name == sequence for info in graph.output) else found


def _sizes(node: onnx.NodeProto, constants: Mapping[str, Array], type_: onnx.TypeProto.Tensor | None) -> Sequence[int]:
    """Returns the sizes of the parts, or nothing when they are unknown."""
    given = np.asarray(1)
    if len(node.input) > 1:
        if node.input[1] not in constants:
            return []
        given = constants[node.input[1]]
        if given.ndim:
            return [int(size) for size in given]
    shape = None if type_ is None else _tensors.shape_of(type_)
    axis = _attribute(node, "axis", 0)
    total = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    if not isinstance(total, int):
        return []
    each = int(given)
    return [min(each, total - start) for start in range(0, total, each)]


def _split(node: onnx.NodeProto, sizes: Sequence[int], opset: int) -> list[onnx.NodeProto]:
    name, axis = node.output[0], _attribute(node, "axis", 0)
    parts = [f"{name}_{index}" for index in range(len(sizes))]
    if opset < _SPLIT_TAKES_INPUTS:
        return [helper.make_node("Split", [node.input[0]], parts, name=node.name, axis=axis, split=sizes)]
    lengths = f"{name}_sizes"
    return [
        helper.make_node("Constant", [], [lengths], value_ints=sizes),
        helper.make_node("Split", [node.input[0], lengths], parts, name=node.name, axis=axis),
    ]


def _part(node: onnx.NodeProto, part: str, output: str, opset: int, *, squeezed: bool) -> list[onnx.NodeProto]:
    axis = _attribute(node, "axis", 0)
    if not squeezed:
        return [helper.make_node("Identity", [part], [output])]
    if opset < _SPLIT_TAKES_INPUTS:
        return [helper.make_node("Squeeze", [part], [output], axes=[axis])]
    axes = f"{output}_axes"
    return [
        helper.make_node("Constant", [], [axes], value_ints=[axis]),
        helper.make_node("Squeeze", [part, axes], [output]),
    ]


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)
