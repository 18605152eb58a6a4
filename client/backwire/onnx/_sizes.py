"""Calculates what exporters calculate with ranks and sizes that are known, and takes the branches that this decides."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from backwire._arrays import Array
from backwire._builder._shapes import Dim
from backwire.onnx import _fold, _tensors

_CALCULATIONS = {
    *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Min", "Max", "Cast", "Identity"),
    *("And", "Or", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Where"),
    *("Concat", "ConstantOfShape", "Expand", "Gather", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
    *("Reshape", "Shape", "Size", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
"""The operators that sizes are calculated with."""

_LIMIT = 65536  # elements; what is larger is no calculation with sizes


_DECIDED = {"If", "SplitToSequence"}
"""The operators that a graph can have only where what decides them is known."""


def fold_sizes(graph: onnx.GraphProto, opset: int) -> bool:
    """Puts constants for what follows from constants and from the sizes that inference found, in place.

    An If whose condition is known then becomes the nodes of its branch. Tells whether anything changed: if so, infer
    shapes and call it again, since more may be known then. A graph where this decides nothing, having neither an If nor
    a split into a sequence, stays as it is.
    """
    if _DECIDED.isdisjoint(node.op_type for node in graph.node):
        return False
    sizes = _Sizes(graph, opset)
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for index, node in enumerate(graph.node):
        if node.op_type == "If":
            if (condition := sizes.known.get(node.input[0])) is not None and condition.size == 1:
                replaced[index] = [*_branch(node, taken=bool(condition.item()))]
        elif (value := sizes.value(node)) is not None:
            sizes.known[node.output[0]] = value
            replaced[index] = [_constant(node.output[0], numpy_helper.from_array(value))]
    if replaced:
        nodes = [new for index, node in enumerate(graph.node) for new in replaced.get(index, [node])]
        del graph.node[:]
        graph.node.extend(nodes)
    return bool(replaced)


class _Sizes:
    """The integers and bools that are known of a graph, by the names of values."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.known = dict(_fold.constants(graph))
        self._opset = opset
        self._shapes: dict[str, Sequence[Dim]] = {tensor.name: tensor.dims for tensor in graph.initializer}
        self._told: dict[str, Sequence[Dim]] = {}
        for info in (*graph.value_info, *graph.input, *graph.output):
            if (shape := _tensors.shape_of(info.type.tensor_type)) is not None:
                self._shapes[info.name] = shape

    def value(self, node: onnx.NodeProto) -> Array | None:
        """Returns what a node always gives, or None when that is not known or no calculation with sizes."""
        if node.op_type not in _CALCULATIONS or not (node.input and node.output):
            return None
        source, rest = node.input[0], node.input[1:]
        if node.op_type in ("Shape", "Size") and source in self._shapes:
            return self._measured(node, self._shapes[source])
        if node.op_type == "Gather" and source in self._told and rest and rest[0] in self.known:
            return self._picked(self._told[source], self.known[rest[0]])
        if all(name in self.known for name in node.input if name) and not self._is_large(node.output[0]):
            return self._evaluated(node)
        return None

    def _measured(self, node: onnx.NodeProto, shape: Sequence[Dim]) -> Array | None:
        if node.op_type == "Size":
            sizes = _all_known(shape, (len(shape),))
            return None if sizes is None else np.asarray(sizes.prod())
        bounds = {item.name: int(item.i) for item in node.attribute}
        told = self._told[node.output[0]] = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
        return _all_known(told, (len(told),))

    def _picked(self, told: Sequence[Dim], places: Array) -> Array | None:
        if any(not -len(told) <= place < len(told) for place in places.ravel().tolist()):
            return None
        return _all_known([told[place] for place in places.ravel().tolist()], places.shape)

    def _is_large(self, name: str) -> bool:
        sizes = [dim for dim in self._shapes.get(name, ()) if isinstance(dim, int)]
        return prod(sizes) > _LIMIT

    def _evaluated(self, node: onnx.NodeProto) -> Array | None:
        given = [numpy_helper.from_array(self.known[name], name) for name in dict.fromkeys(filter(None, node.input))]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        graph = helper.make_graph([node], "node", [], outputs, given)
        try:
            with np.errstate(all="raise"):
                (result,) = ReferenceEvaluator(graph, {"": self._opset}).run(None, {})
        except (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError):
            return None  # the checker will say what is wrong with the node
        value = np.asarray(result)
        return value if value.dtype.kind in "iub" and value.size <= _LIMIT else None


def _all_known(dims: Sequence[Dim], shape: tuple[int, ...]) -> Array | None:
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return np.array(sizes, np.int64).reshape(shape) if len(sizes) == len(dims) else None


def _constant(name: str, tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor)


def _branch(node: onnx.NodeProto, *, taken: bool) -> Iterator[onnx.NodeProto]:
    """Yields the nodes of a branch, the names of its own values begun with that of the If's first output."""
    wanted = "then_branch" if taken else "else_branch"
    branch = next(item.g for item in node.attribute if item.name == wanted)
    own = [*(name for inner in branch.node for name in inner.output), *(tensor.name for tensor in branch.initializer)]
    names = {name: f"{node.output[0]}/{name}" for name in own if name}
    for tensor in branch.initializer:
        yield _constant(names[tensor.name], tensor)
    for inner in branch.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        _rename(copy, names)
        yield copy
    for inner_output, name in zip(branch.output, node.output, strict=True):
        if name:
            yield helper.make_node("Identity", [names.get(inner_output.name, inner_output.name)], [name])


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Gives the values that a node, and any graph within it, takes and makes other names, in place."""
    for field in (node.input, node.output):
        field[:] = [names.get(name, name) for name in field]
    for item in node.attribute:
        for graph in (item.g, *item.graphs) if item.HasField("g") else item.graphs:
            for inner in graph.node:
                _rename(inner, names)
