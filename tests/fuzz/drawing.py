"""Messages drawn from bytes: valid ones, then damaged where the bytes say so."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import graph_pb2, optimizer_pb2
from backwire_server.engine import ops as _ops  # noqa: F401  # fills the table
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample

T = TypeVar("T")

SIZES = (0, 1, -1, 2, 3, 7, 64, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**62, 2**63 - 1, -(2**63))
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "y", "loss", "\0", "%1:Add", "\U0001f600", "ij,jk->ik", "...", "->", "i" * 500)
LENGTHS = (1, 2, 2, 3, 3, 4, 4, 6, 6, 8, 8, 12, 16, 24, 60, 400)
GIANT = (9, 33, 65, 1_000, 1_000, 50_000)
SAMPLES = [(name, sample) for name, op in sorted(OPS.items()) if not op.internal for sample in op.samples]


class Draw:
    """Decisions taken from bytes, one after another; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def below(self, count: int) -> int:
        """Returns a number from 0 to below `count`, which is at most 65,536."""
        taken = self._data[self._place : self._place + (1 if count <= 256 else 2)]
        self._place += len(taken)
        return int.from_bytes(taken, "big") % count

    def one(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def rest(self) -> bytes:
        """Returns what was not used."""
        return self._data[self._place :]


def graph(draw: Draw) -> graph_pb2.Graph:
    """Returns a graph of a sample of an operator, perhaps repeated in a chain, with up to 7 damages."""
    name, sample = draw.one(SAMPLES)
    message = _of_sample(name, sample, draw)
    if draw.below(4) == 0:
        _chain(message, draw)
    for _ in range(draw.below(8)):
        draw.one(DAMAGES)(message, draw)
    return message


def optimizer(draw: Draw) -> optimizer_pb2.Optimizer:
    """Returns an optimizer whose fields have extreme values."""
    message = optimizer_pb2.Optimizer()
    fill(message, draw, 6)
    return message


def _of_sample(name: str, sample: Sample, draw: Draw) -> graph_pb2.Graph:
    message = graph_pb2.Graph()
    names = []
    for index, array in enumerate(sample.inputs):
        names.append("" if array is None else f"in{index}")
        if array is None:
            continue
        kind = 2 if index in sample.static else draw.below(3)
        if kind == 0:
            shape = [graph_pb2.Dimension(size=size) for size in np.shape(array)]
            dtype = tensors.data_type_of(np.asarray(array).dtype)
            message.inputs.add(name=names[-1], dtype=dtype, shape=shape)
        elif kind == 1:
            message.parameters.add(name=names[-1], value=tensors.encode(array))
        else:
            message.constants.add(name=names[-1], value=tensors.encode(array))
    outputs = [f"out{index}" for index in range(sample.n_outputs)]
    node = message.nodes.add(op=name, inputs=names, outputs=outputs)
    for key, value in sample.attributes.items():
        _set(node.attributes[key], value)
    message.outputs["out"] = "out0"
    return message


def _set(attribute: graph_pb2.Attribute, value: Any) -> None:
    match value:
        case bool() | int():
            attribute.integer = int(value)
        case float():
            attribute.number = value
        case str():
            attribute.text = value
        case tuple() | list():
            if value and isinstance(value[0], str):
                attribute.texts.items.extend(value)
            elif any(isinstance(each, float) for each in value):
                attribute.numbers.items.extend(value)
            else:
                attribute.integers.items.extend(value)
        case _:
            attribute.tensor.CopyFrom(tensors.encode(value))


def _chain(message: graph_pb2.Graph, draw: Draw) -> None:
    """Puts up to 400 nodes behind the last one, seldom many of them."""
    op = draw.one(("Relu", "Neg", "Exp", "Identity", "Transpose", "Add", "Concat"))
    last = "out0"
    for index in range(draw.one(LENGTHS)):
        inputs = [last, last] if op in ("Add", "Concat") else [last]
        node = message.nodes.add(op=op, inputs=inputs, outputs=[f"chain{index}"])
        if op == "Concat":
            node.attributes["axis"].integer = 0
        last = f"chain{index}"
    message.outputs["out"] = last


def _damage_circle(message: graph_pb2.Graph, draw: Draw) -> None:
    """Has a node take what comes after it."""
    node, last = draw.one(message.nodes), message.nodes[-1]
    if node.inputs and last.outputs:
        node.inputs[draw.below(len(node.inputs))] = last.outputs[0]


def _damage_symbols(message: graph_pb2.Graph, draw: Draw) -> None:
    """Leaves sizes of inputs open."""
    for item in message.inputs:
        for dim in item.shape:
            if draw.below(3):
                dim.symbol = draw.one(("n", "m", "k"))


def _damage_attribute(message: graph_pb2.Graph, draw: Draw) -> None:
    node = draw.one(message.nodes)
    names = [*OPS[node.op].attributes, "none"] if node.op in OPS else ["none"]
    attribute = node.attributes[draw.one(names)]
    match draw.below(9):
        case 0:
            attribute.integer = draw.one(SIZES)
        case 1:
            attribute.number = draw.one(NUMBERS)
        case 2:
            attribute.text = draw.one(TEXTS)
        case 3:
            attribute.integers.items[:] = [draw.one(SIZES) for _ in range(draw.below(9))]
        case 4:
            attribute.numbers.items[:] = [draw.one(NUMBERS) for _ in range(draw.below(9))]
        case 5:
            attribute.texts.items[:] = [draw.one(TEXTS) for _ in range(draw.below(5))]
        case 6:
            attribute.integers.items[:] = [draw.one(SIZES)] * draw.one(GIANT)
        case 7:
            attribute.text = draw.one(TEXTS) * draw.one(GIANT)
        case _:
            attribute.tensor.CopyFrom(tensors.encode(np.array(draw.one(SIZES))))


def _damage_input(message: graph_pb2.Graph, draw: Draw) -> None:
    if not message.inputs:
        return
    item = draw.one(message.inputs)
    match draw.below(4):
        case 0 if item.shape:
            draw.one(item.shape).size = draw.one(SIZES)
        case 1 if item.shape:
            draw.one(item.shape).symbol = draw.one(TEXTS)
        case 2:
            item.shape.add(size=draw.one(SIZES))
        case _:
            item.dtype = draw.below(18)  # type: ignore[assignment]


def _damage_constant(message: graph_pb2.Graph, draw: Draw) -> None:
    """Replaces a constant: static inputs such as shapes and axes are constants."""
    if not message.constants:
        return
    value = np.array([draw.one(SIZES) for _ in range(draw.below(6))], np.int64)
    draw.one(message.constants).value.CopyFrom(tensors.encode(value if draw.below(4) else value[:1].reshape(-1)))


def _damage_parameter(message: graph_pb2.Graph, draw: Draw) -> None:
    if message.parameters:
        rule = draw.one(message.parameters).initializer
        rule.dtype, rule.distribution = draw.below(15), draw.below(10)  # type: ignore[assignment]
        rule.shape[:] = [draw.one(SIZES) for _ in range(draw.below(5))]


def _damage_edges(message: graph_pb2.Graph, draw: Draw) -> None:
    node = draw.one(message.nodes)
    names = [*TEXTS[:5], *node.outputs, *(item.name for item in message.inputs), *message.nodes[-1].outputs]
    match draw.below(5):
        case 0:
            node.inputs.append(draw.one(names))
        case 1 if node.inputs:
            node.inputs[draw.below(len(node.inputs))] = draw.one(names)
        case 2:
            node.outputs.append(draw.one(names))
        case 3 if node.inputs:
            del node.inputs[draw.below(len(node.inputs)) :]
        case _:
            node.op = draw.one((*sorted(OPS)[:250], "NoSuchOp"))


def _damage_results(message: graph_pb2.Graph, draw: Draw) -> None:
    match draw.below(3):
        case 0:
            message.loss = draw.one(("out0", *TEXTS))
        case 1:
            message.outputs[draw.one(TEXTS)] = draw.one(("out0", *TEXTS))
        case _:
            message.updates[draw.one(("in0", *TEXTS))] = draw.one(("out0", *TEXTS))


DAMAGES = (
    _damage_attribute,
    _damage_attribute,
    _damage_input,
    _damage_constant,
    _damage_parameter,
    _damage_edges,
    _damage_results,
    _damage_circle,
    _damage_symbols,
)


def fill(message: Any, draw: Draw, depth: int) -> None:
    """Sets two in three fields to extreme values, within messages to this depth."""
    for field in message.DESCRIPTOR.fields:
        if draw.below(3) == 0:
            continue
        repeated = field.is_repeated
        if field.message_type is not None:
            if depth and not field.message_type.GetOptions().map_entry:
                inner = getattr(message, field.name)
                inner = inner.add() if repeated else inner
                if not repeated:
                    inner.SetInParent()
                fill(inner, draw, depth - 1)
            continue
        value = _scalar(field, draw)
        if repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


def _scalar(field: Any, draw: Draw) -> Any:
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return draw.one(NUMBERS) if draw.below(2) else draw.below(256) / 256
    if field.cpp_type == field.CPPTYPE_STRING:
        return draw.one(TEXTS) if field.type == field.TYPE_STRING else draw.one(TEXTS).encode()
    if field.cpp_type == field.CPPTYPE_BOOL:
        return bool(draw.below(2))
    bits = 64 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    value = draw.one(SIZES) if draw.below(2) else draw.below(16)
    value = abs(value) if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else value
    return max(-(2 ** (bits - 1)), min(value, 2 ** (bits - 1) - 1))
