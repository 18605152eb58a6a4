"""Messages drawn from bytes: valid ones, then damaged where the bytes say so."""

from typing import Any

import numpy as np
from tests.fuzz.damages import DAMAGES
from tests.fuzz.draws import LENGTHS, NUMBERS, SIZES, TEXTS, Draw

from backwire_api import tensors
from backwire_api.v1 import graph_pb2, optimizer_pb2
from backwire_server.engine import ops as _ops  # noqa: F401  # fills the table
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample

SAMPLES = [(name, sample) for name, op in sorted(OPS.items()) if not op.internal for sample in op.samples]


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
