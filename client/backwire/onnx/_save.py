"""save: from a session to a model."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from backwire._arrays import Array
from backwire._builder import _shapes
from backwire._builder._graph import LOSS, Graph
from backwire._errors import GraphError, InvalidRequestError
from backwire._session import Session
from backwire.onnx import _tensors
from backwire.onnx._prepare import COMMON_OPSET
from backwire.onnx._supported import GRADIENT, PREVIEWS
from backwire_api import tensors
from backwire_api.v1 import graph_pb2

OPSETS = range(COMMON_OPSET, onnx.defs.onnx_opset_version() + 1)
"""The operator sets that a model may be written in: those whose semantics the operators of a graph have."""

MESSAGE_BYTES = 1 << 30  # parameters beyond this go beside the model, since a message cannot have 2 GiB

_TRAINING_MODE = {"BatchNormalization": 5, "Dropout": 2}
"""The operators that can be told that they are in training, and how many inputs they have when they are not."""


def save(session: Session, path: str | os.PathLike[str], *, graph: Graph | None = None, averaged: bool = False) -> None:
    """Writes the model that a session trains to an ONNX file, with the parameters as they are on the server now.

    The model computes the outputs of the session's graph, or its loss when it has none, as Forward does in eval mode,
    from the inputs that these depend on. Parameters become initializers of their names, frozen ones too, and
    constants become Constant nodes, so that `load` gives the graph again; what is in training mode is put into
    inference. The model is of the oldest operator set, from 21 on, that has all its operators, and `onnx.checker` has
    accepted it before anything is written; a file that was there is replaced in one go. Parameters of more than 1 GiB
    go beside the model, as `<name>.data`, which is written before it.

    Args:
        session: A session of a loaded model or of a graph from the builder.
        path: The file to write.
        graph: The graph that the session was created from; needed when the client attached to the session by its id.
        averaged: True writes the exponential moving average of each trainable parameter in place of its value.

    Raises:
        InvalidRequestError: The session was attached to, and `graph` is not given; or `averaged`, but its optimizer
            has no `average_decay`.
        GraphError: The graph has what ONNX cannot say; nothing is written.

    Example:
        >>> backwire.onnx.save(session, "trained.onnx")
    """
    known = graph or session.graph
    if known is None:
        raise InvalidRequestError(
            f"the graph of session {session.id} is not known here, since it was attached to by its id; pass graph="
        )
    outline = _Outline(known)
    values = session.parameters(outline.parameters, averaged=averaged)
    model = outline.model(values)
    _write(model, Path(path), sum(array.nbytes for array in values.values()))


class _Outline:
    """What the outputs of a graph depend on, and how it is said in ONNX."""

    def __init__(self, graph: Graph) -> None:
        self._graph, proto = graph, graph.proto
        self._outputs = dict(proto.outputs) or {LOSS: proto.loss}
        producers = {name: node for node in proto.nodes for name in node.outputs if name}
        needed: set[str] = set()
        pending = list(self._outputs.values())
        while pending:
            name = pending.pop()
            if name not in needed:
                needed.add(name)
                pending.extend(filter(None, producers[name].inputs if name in producers else ()))
        self._needed = needed
        self._nodes = [node for node in proto.nodes if needed.intersection(node.outputs)]
        self.parameters = [item.name for item in proto.parameters if item.name in needed]

    def model(self, values: Mapping[str, Array]) -> onnx.ModelProto:
        """Returns the model with these parameters, checked; raises GraphError when ONNX cannot say it."""
        if any(node.op == GRADIENT for node in self._nodes):
            raise GraphError(
                "an output is computed from a gradient, which no ONNX runtime computes; leave it out of the outputs"
            )
        proto = self._graph.proto
        inner = [said for node in self._nodes for said in self._node(node)]
        nodes = [*self._constants(), *inner, *self._identities()]
        made = onnx.helper.make_graph(
            nodes,
            "backwire",
            [_input(item) for item in proto.inputs if item.name in self._needed],
            [onnx.ValueInfoProto(name=name) for name in self._outputs],
            [_tensors.tensor_of(name, array) for name, array in values.items()],
        )
        domains = {"": _opset(nodes), **{node.domain: 1 for node in nodes if node.domain}}
        opsets = [onnx.helper.make_opsetid(*domain) for domain in domains.items()]
        model = onnx.helper.make_model_gen_version(made, opset_imports=opsets, producer_name="backwire")
        try:
            self._declare_outputs(model)
            onnx.checker.check_model(model)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise GraphError(f"the graph is no valid ONNX model: {error}") from None
        return model

    def _constants(self) -> Iterator[onnx.NodeProto]:
        for item in self._graph.proto.constants:
            if item.name in self._needed:
                value = _tensors.tensor_of(item.name, tensors.decode(item.value))
                yield onnx.helper.make_node("Constant", [], [item.name], value=value)

    def _node(self, node: graph_pb2.Node) -> Iterator[onnx.NodeProto]:
        inputs, outputs = list(node.inputs), self._kept(node)
        attributes = {name: _attribute(value) for name, value in node.attributes.items()}
        if node.op in _TRAINING_MODE:
            inputs = inputs[: _TRAINING_MODE[node.op]]
            attributes.pop("training_mode", None)
        if node.op == "Gather":
            attributes.pop("from_end", None)  # which changes nothing where all indices are good
        if node.op == "BatchNormalization":
            for kept, name in zip(inputs[3:], outputs[1:], strict=False):
                if name:
                    yield onnx.helper.make_node("Identity", [kept], [name], name=name)
            outputs = outputs[:1]
        while outputs and not outputs[-1]:
            outputs.pop()
        if not self._needed.isdisjoint(outputs):
            name, domain = node.name or outputs[0], PREVIEWS.get(node.op)
            yield onnx.helper.make_node(node.op, inputs, outputs, name=name, domain=domain, **attributes)

    def _kept(self, node: graph_pb2.Node) -> list[str]:
        """Returns the outputs, those without a name that no one needs and that the operator can do without."""
        names = enumerate(node.outputs)
        return ["" if name not in self._needed and _is_optional(node.op, at) else name for at, name in names]

    def _identities(self) -> Iterator[onnx.NodeProto]:
        """Yields what gives outputs their names where they are not those of the values."""
        for name, value in self._outputs.items():
            if name != value:
                if name in self._needed:
                    raise GraphError(f"output {name!r} has the name of another value, and in ONNX may not; rename it")
                yield onnx.helper.make_node("Identity", [value], [name], name=name)

    def _declare_outputs(self, model: onnx.ModelProto) -> None:
        found = onnx.shape_inference.infer_shapes(_without_large(model), data_prop=True)
        inferred = {info.name: info for info in found.graph.output}
        for info in model.graph.output:
            value = self._graph.values.get(info.name)
            type_ = inferred[info.name].type.tensor_type
            shape, dtype = _tensors.shape_of(type_), _tensors.dtype_of(type_.elem_type)
            if value is not None and (shape is None or dtype is None):
                shape, dtype = value.shape, value.dtype
            if shape is None or dtype is None:
                raise GraphError(
                    f"output {info.name!r} has a rank that neither ONNX nor the builder knows; tell it with "
                    f"bw.op(..., shape=) or bw.reshape, or leave the output out"
                )
            info.CopyFrom(_tensors.value_info(info.name, dtype, shape))


def _opset(nodes: list[onnx.NodeProto]) -> int:
    """Returns the oldest operator set that has all operators with all their inputs, outputs and attributes."""
    known = [next((opset for opset in OPSETS if _knows(opset, node)), OPSETS[-1]) for node in nodes]
    return max(known, default=OPSETS[0])


def _is_optional(op: str, place: int) -> bool:
    """Tells whether a node may leave its output at the place out: an LSTM may, a Split or a TopK may not."""
    try:
        declared = onnx.defs.get_schema(op, domain=PREVIEWS.get(op, "")).outputs
    except onnx.defs.SchemaError:
        return False
    optional: Any = onnx.defs.OpSchema.FormalParameterOption.Optional
    return place < len(declared) and declared[place].option == optional


def _knows(opset: int, node: onnx.NodeProto) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return False
    fits = len(node.input) <= schema.max_input and len(node.output) <= schema.max_output
    return fits and all(item.name in schema.attributes for item in node.attribute)


def _without_large(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with declarations in place of floating-point initializers, whose numbers no shape needs."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        dtype = _tensors.dtype_of(tensor.data_type)
        assert dtype is not None
        light.graph.input.append(_tensors.value_info(tensor.name, dtype, tuple(tensor.dims)))
    return light


def _input(item: graph_pb2.Input) -> onnx.ValueInfoProto:
    shape: _shapes.Shape = tuple(dim.symbol or dim.size for dim in item.shape)
    return _tensors.value_info(item.name, tensors.dtype_of(item.dtype), shape)


def _attribute(message: graph_pb2.Attribute) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "tensor":
        return _tensors.tensor_of("", tensors.decode(message.tensor))
    value = getattr(message, str(kind))
    return list(value.items) if kind in ("integers", "numbers", "texts") else value


def _write(model: onnx.ModelProto, path: Path, nbytes: int) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        if nbytes > MESSAGE_BYTES:
            location = f"{path.name}.data"
            path.with_name(location).unlink(missing_ok=True)
            onnx.save(model, partial, save_as_external_data=True, location=location)
        else:
            onnx.save(model, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
