"""Damages to graphs that are right, each of one kind."""

import numpy as np
from tests.fuzz.draws import GIANT, NUMBERS, SIZES, TEXTS, Draw

from backwire_api import tensors
from backwire_api.v1 import graph_pb2
from backwire_server.engine import ops as _ops  # noqa: F401  # fills the table
from backwire_server.engine.registry import OPS


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
