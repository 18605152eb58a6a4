"""Puts the nodes of a graph into a builder."""

from collections.abc import MutableMapping

import numpy as np

from backwire_server.engine.builder import Builder
from backwire_server.engine.differentiate import differentiate
from backwire_server.engine.errors import GraphError, UnknownOp
from backwire_server.engine.graph import GRADIENT, Node
from backwire_server.engine.registry import OPS
from backwire_server.engine.values import O, Value


def replay(builder: Builder, node: Node, values: MutableMapping[str, Value]) -> None:
    """Emits a node, reading what it depends on from `values` by name and adding its outputs there.

    Raises EngineError when the node does not fit; internal operators are refused with UnknownOp.
    """
    builder.enter(node)
    if node.op in OPS and OPS[node.op].internal:
        message = f"{node.op} node {node.label!r} names an internal op; use ONNX's operators"
        raise UnknownOp(message, field=f"graph.nodes[{node.label}]")
    results = _gradients(builder, node, values) if node.op == GRADIENT else _outputs(builder, node, values)
    values.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)


def _outputs(builder: Builder, node: Node, values: MutableMapping[str, Value]) -> tuple[Value, ...]:
    inputs = [values[name] if name else None for name in node.inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()
    return builder.emit(node.op, inputs, node.attributes, n_outputs=len(node.outputs))


def _gradients(builder: Builder, node: Node, values: MutableMapping[str, Value]) -> tuple[Value, ...]:
    """Emits ONNX's Gradient (ai.onnx.preview.training): the gradient of the value `y` by each of the values `xs`.

    The other inputs, `zs`, are just those that y depends on. A y of several elements is differentiated as its sum.
    """
    attributes = dict(node.attributes)
    xs, y = attributes.get("xs"), attributes.get("y")
    field = f"graph.nodes[{node.label}]"
    if not isinstance(xs, tuple) or not isinstance(y, str) or len(xs) != len(node.outputs):
        raise GraphError(f"Gradient node {node.label!r} needs xs, a name for each output, and y, a name", field=field)
    if missing := [name for name in xs if str(name) not in node.inputs]:
        raise GraphError(f"Gradient node {node.label!r} has no input {missing[0]!r}, but xs names it", field=field)
    sources = [values[str(name)] for name in xs]
    if builder.abstract:  # rules need sizes; the types of gradients are known without them
        return tuple(builder.leaf(f"{node.outputs[0]}%{index}", x.type) for index, x in enumerate(sources))
    of = values[y]
    found = differentiate(builder, {of.name: builder.constant(np.ones(of.sizes, of.dtype))}, [x.name for x in sources])
    zeros = (O.Expand(x.like(0.0), list(x.shape)) for x in sources)
    pairs = zip(sources, zeros, strict=True)
    return tuple(found[x.name] or zero for x, zero in pairs)
