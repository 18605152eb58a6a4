"""The gradient of a graph, as more of the graph: reverse accumulation by symbolic rules.

Walking the nodes backwards, each one's rule builds the nodes that carry the gradient of its outputs to its inputs
(the chain rule); contributions to the same value are added. The result can be differentiated again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backwire_server.engine.builder import Builder
from backwire_server.engine.contributions import total
from backwire_server.engine.emitted import Emitted
from backwire_server.engine.errors import DtypeMismatch, NotDifferentiable
from backwire_server.engine.graph import DType, TensorType
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.engine.values import O, Value


def is_float(dtype: DType) -> bool:
    """Tells whether values of this dtype can have gradients (bfloat16 included)."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def differentiate(
    builder: Builder, seeds: Mapping[str, Value], wrt: Sequence[str], stop: Stop = NEVER
) -> dict[str, Value | None]:
    """Adds the gradient nodes to the builder and returns the gradient of each value in `wrt`, None where none flows.

    `seeds` maps the name of each value that is differentiated to the gradient of the final result with respect to it
    (for a loss: a one of its shape). Only paths from `seeds` to `wrt` are built. Raises NotDifferentiable when such a
    path goes through an operator without a gradient, and Stopped between two nodes when that is wanted.
    """
    nodes = tuple(builder.nodes)
    active = _reached(builder, nodes, wrt)
    gradients = {name: [seed] for name, seed in seeds.items() if name in active}
    inside = builder.owner
    for node in reversed(nodes):
        if stop.wanted:
            stop.heed()
        if not gradients.keys().isdisjoint(node.outputs) and not active.isdisjoint(node.inputs):
            builder.label, builder.owner, builder.of = f"gradient of {node.label}", inside or node.owner, node.of
            incoming = [total(gradients[name]) if name in gradients else None for name in node.outputs]
            for name, gradient in zip(node.inputs, _apply_rule(builder, node, incoming), strict=False):
                if gradient is not None and name in active:
                    gradients.setdefault(name, []).append(sum_to(gradient, Value(builder, name).type))
    builder.label, builder.owner, builder.of = "a sum of gradients", inside, ""
    found = {name: total(gradients[name]) if name in gradients else None for name in wrt}
    builder.label = ""
    return found


def undifferentiable(builder: Builder, of: Iterable[str], wrt: Iterable[str]) -> Emitted | None:
    """Returns a node on a path from `wrt` to `of` whose operator has no gradient rule, or None.

    One whose type is not known yet does not count: it may be no floating-point value.
    """
    active = _reached(builder, builder.nodes, wrt)
    needed = set(of)
    for node in reversed(builder.nodes):
        if not needed.isdisjoint(node.outputs) and not active.isdisjoint(node.inputs):
            if node.op.gradient is not None:
                needed.update(name for name in node.inputs if name in active)
            elif any(builder.types[name] is not None for name in node.outputs):
                return node
    return None


def sum_to(value: Value, type_: TensorType) -> Value:
    """Returns a gradient in the shape of what it is the gradient of: the adjoint of broadcasting, in both directions.

    Raises DtypeMismatch when the gradient has another dtype, which is a defect of the rule that built it.
    """
    if value.dtype != type_.dtype:
        raise DtypeMismatch(f"a gradient of {value.dtype.name} was built for a value of {type_.dtype.name}")
    shape = type_.shape
    extra = value.rank - len(shape)
    if value.shape == shape:
        return value
    if extra >= 0:
        stretched = [axis for axis in range(extra, value.rank) if shape[axis - extra] == 1 and value.shape[axis] != 1]
        if axes := [*range(extra), *stretched]:
            value = O.ReduceSum(value, axes, keepdims=1)
        if extra:
            value = O.Reshape(value, list(value.shape[extra:]), allowzero=1)
    return value if value.shape == shape else O.Expand(value, list(shape))


def _reached(builder: Builder, nodes: Sequence[Emitted], wrt: Iterable[str]) -> set[str]:
    """Returns the floating-point values that depend on `wrt`."""
    active = set(wrt)
    for node in nodes:
        if not active.isdisjoint(node.inputs):
            types = ((name, builder.types[name]) for name in node.outputs)
            active.update(name for name, type_ in types if type_ is None or is_float(type_.dtype))
    return active


def _apply_rule(builder: Builder, node: Emitted, incoming: Sequence[Value | None]) -> Sequence[Value | None]:
    if node.op.gradient is None:
        raise NotDifferentiable(
            f"{node.described} has no gradient, but lies between what is differentiated and what it "
            "is differentiated by; take it off that path, or freeze the parameters before it"
        )
    inputs = [Value(builder, name) if name else None for name in node.inputs]
    outputs = tuple(Value(builder, name) for name in node.outputs)
    several = node.op.outputs != 1
    g: Any = tuple(incoming) if several else incoming[0]
    result = node.op.gradient(g, outputs if several else outputs[0], *inputs, **node.attributes)
    return result if isinstance(result, tuple) else (result,)
