"""load: from a model to the values of a graph."""

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import onnx

from backwire import _arrays
from backwire._arrays import Array, DType
from backwire._builder import _declare
from backwire._builder._gradient import gradient
from backwire._builder._graph import LOSS, Graph, graph
from backwire._builder._node import AttributeValue, Node
from backwire._builder._shapes import Shape
from backwire._builder._value import Value, as_constant
from backwire._errors import GraphError, UnknownNameError
from backwire.onnx import _supported, _tensors
from backwire.onnx._prepare import Prepared, prepare, read
from backwire_api.v1 import graph_pb2

_SETTINGS = {
    ("BatchNormalization", 3): "state",
    ("BatchNormalization", 4): "state",
    ("Clip", 1): "constant",
    ("Clip", 2): "constant",
    ("Dropout", 1): "constant",
    ("MelWeightMatrix", 3): "constant",
    ("MelWeightMatrix", 4): "constant",
    ("NonMaxSuppression", 3): "constant",
    ("NonMaxSuppression", 4): "constant",
    ("OneHot", 2): "constant",
    ("Pad", 2): "constant",
    ("Range", 0): "constant",
    ("Range", 1): "constant",
    ("Range", 2): "constant",
    ("Resize", 1): "constant",
    ("Resize", 2): "constant",
    ("STFT", 2): "constant",
}
"""Floating-point inputs of operators, by position, that no one trains: statistics are kept, settings never change."""

_MOVES = ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Tile", "Unsqueeze")
"""Operators whose first input is to the model what their output is."""


def load(model: str | os.PathLike[str] | onnx.ModelProto, *, frozen: str | Iterable[str] = ()) -> Graph:
    """Returns the graph of an ONNX model, of operator set 6 to the newest that the onnx package knows.

    Floating-point initializers become parameters of their own names. Those that only set an operator up (the bounds of
    Clip, the ratio of Dropout, the scales of Resize and the like) become constants, as do all initializers of other
    types and Constant nodes. Running means and variances of BatchNormalization, and what PyTorch's exporter marks as a
    buffer, become frozen parameters. Inputs, outputs and the values between them keep their names, and
    `graph.value(name)` returns any of them to build on, for example a loss. A floating-point output of one element that
    is called `loss` is the graph's loss. What no output depends on is left out. Sizes that the model leaves open have
    the names that it gives them (`dim_param`), or that of the input and the axis, such as `x_0`.

    Dropout drops in train mode, and a BatchNormalization that the model has in training mode updates its running
    statistics there, with the variance of the batch as it is (PyTorch takes n / (n - 1) of it). Functions that the
    model defines are inlined, an If whose condition follows from constants and sizes becomes the branch that it takes,
    and Gradient nodes (ai.onnx.preview.training) differentiate within the graph. Whether the server has an operator, it
    tells itself, when the session is created.

    Export a model that is to be trained without what folds its parameters together:
    `torch.onnx.export(..., dynamo=True, optimize=False)`, or `dynamo=False` with `do_constant_folding=False`. What a
    module does not train (`requires_grad=False`, the row of an embedding's `padding_idx`) the file does not tell: name
    such parameters in `frozen`.

    Args:
        model: The path of a file, with its external data beside it, or the model itself, which is not changed.
        frozen: Globs over whole names of parameters that are not to be trained, such as `"encoder.*"`.

    Raises:
        GraphError: The file is no valid model, its operator set is out of range, or it has what a graph cannot hold:
            other control flow, operators of other domains, sequences, optionals, texts, quantised and other types. One
            error lists every such part.
        UnknownNameError: A glob in `frozen` matches no parameter.

    Example:
        >>> model = backwire.onnx.load("classifier.onnx", frozen=["encoder.*"])
        >>> labels = bw.input("labels", ("batch",), dtype="int64")
        >>> loss = bw.softmax_cross_entropy(model.value("logits"), labels)
        >>> session = client.create_session(loss, optimizer=bw.Adam(1e-4))
    """
    prepared = prepare(read(model))
    source = prepared.model.graph
    builder = _Builder(prepared, [frozen] if isinstance(frozen, str) else list(frozen))
    for node in source.node:
        builder.add(node)
    outputs = {info.name: builder.values[info.name] for info in source.output}
    loss = outputs.pop(LOSS, None)
    if loss is not None and any(dim not in (1, None) for dim in loss.shape or ()):
        raise GraphError(f"the output {loss!r} has the name of the loss, but several elements; rename it in the model")
    made = graph(loss=loss, outputs=outputs)
    made.proto.opset_version = prepared.opset
    return made


class _Builder:
    """The values of a model by name, which each node adds to."""

    def __init__(self, prepared: Prepared, frozen: list[str]) -> None:
        source = prepared.model.graph
        self._types = {info.name: info.type.tensor_type for info in (*source.value_info, *source.output)}
        roles = _roles(source)
        kept = [tensor.name for tensor in source.initializer if _is_parameter(tensor, prepared, roles)]
        for pattern in frozen:
            if not any(fnmatchcase(name, pattern) for name in kept):
                raise UnknownNameError(
                    f"frozen: {pattern!r} matches none of the parameters, which are: {', '.join(kept) or 'none'}"
                )
        self._still = {name for name in kept if name in prepared.buffers or "state" in roles.get(name, ())}
        self._still |= {name for name in kept for pattern in frozen if fnmatchcase(name, pattern)}
        self.values: dict[str, Value] = {
            tensor.name: self._initializer(tensor, trained=tensor.name in kept) for tensor in source.initializer
        }
        for info in source.input:
            if info.name not in self.values:
                self.values[info.name] = _input(info)

    def add(self, node: onnx.NodeProto) -> None:
        """Adds the outputs of a node whose inputs are there."""
        attributes = {item.name: _attribute(item) for item in node.attribute}
        if node.op_type == "Constant":
            self.values[node.output[0]] = _constant(attributes)
            return
        if node.op_type == _supported.GRADIENT:
            self._add_gradients(node, attributes)
            return
        inputs = tuple(self.values[name] if name else None for name in node.input)
        updates = _updates(node.op_type, inputs, attributes)
        made = Node(node.op_type, inputs, attributes, outputs=max(len(node.output), len(updates) + 1), updates=updates)
        first = next((value.dtype for value in inputs if value is not None), _arrays.FLOAT32)
        for index, name in enumerate(node.output):
            if name:
                dtype, shape = self._type(name, first)
                self.values[name] = Value(made, dtype, shape, name=name, index=index)

    def _add_gradients(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Adds the outputs of a Gradient node: the gradient of the value `y` by each of the values `xs`."""
        y, xs = attributes.get("y", ""), attributes.get("xs", [])
        if y not in self.values or list(node.input) != [*xs, *attributes.get("zs", [])]:
            raise GraphError(
                f"Gradient node {node.name or node.output[0]!r} must come after its y, and its inputs be the values "
                "that its xs and zs name; a gradient at other values is not supported"
            )
        for name, slope in zip(node.output, gradient(self.values[y], [self.values[x] for x in xs]), strict=True):
            self.values[name] = slope.named(name)

    def _initializer(self, tensor: onnx.TensorProto, *, trained: bool) -> Value:
        array, name = _tensors.array_of(tensor), tensor.name
        if trained:
            return _declare.parameter(name, array, dtype=array.dtype, frozen=name in self._still)
        constant = as_constant(array, array.dtype)
        return Value(constant.source, constant.dtype, constant.shape, name=name)

    def _type(self, name: str, otherwise: DType) -> tuple[DType, Shape]:
        type_ = self._types.get(name)
        if type_ is None:
            return otherwise, None
        return _tensors.dtype_of(type_.elem_type) or otherwise, _tensors.shape_of(type_)


def _roles(source: onnx.GraphProto) -> Mapping[str, set[str]]:
    """Returns what each value is to the nodes that take it, directly or after it was only moved."""
    roles: dict[str, set[str]] = {info.name: {"operand"} for info in source.output}
    for node in reversed(source.node):
        for index, name in enumerate(node.input):
            role = {_SETTINGS.get((node.op_type, index), "operand")}
            moved = node.op_type in _MOVES and index == 0
            roles.setdefault(name, set()).update(roles.get(node.output[0], set()) if moved else role)
    return roles


def _is_parameter(tensor: onnx.TensorProto, prepared: Prepared, roles: Mapping[str, set[str]]) -> bool:
    floating = tensor.name in prepared.initializers and _tensors.is_float_tensor(tensor)
    return floating and roles.get(tensor.name) != {"constant"}


def _updates(
    op: str, inputs: Sequence[Value | None], attributes: Mapping[str, AttributeValue]
) -> tuple[tuple[Value, int], ...]:
    """Returns the statistics that a BatchNormalization in training replaces, and by which of its outputs."""
    if op != "BatchNormalization" or not attributes.get("training_mode"):
        return ()
    statistics = [value for value in inputs[3:5] if value is not None]
    if not all(isinstance(value.source, graph_pb2.Parameter) for value in statistics):
        return ()
    return tuple((value, index) for index, value in enumerate(statistics, start=1))


def _input(info: onnx.ValueInfoProto) -> Value:
    type_ = info.type.tensor_type
    dtype, shape = _tensors.dtype_of(type_.elem_type), _tensors.shape_of(type_)
    if dtype is None or shape is None:
        raise GraphError(f"input {info.name!r} has no type and rank; export the model with the shapes of its inputs")
    return _declare.input(info.name, shape, dtype)


def _attribute(item: onnx.AttributeProto) -> AttributeValue:
    value: Any = onnx.helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return _tensors.array_of(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    return [each.decode() if isinstance(each, bytes) else each for each in value]


def _constant(attributes: Mapping[str, Any]) -> Value:
    kind, value = next(iter(attributes.items()))
    if kind == "value":
        array: Array = value
        return as_constant(array, array.dtype)
    return as_constant(value, _arrays.INT64 if kind.startswith("value_int") else _arrays.FLOAT32)
