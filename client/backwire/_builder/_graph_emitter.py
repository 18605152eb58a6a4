"""Writes a graph down as a message: names every value, in an order that computes them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backwire._builder._node import AttributeValue, Constant, Node, Source
from backwire._builder._value import Value
from backwire._errors import GraphError
from backwire_api import tensors
from backwire_api.v1 import graph_pb2

_SHARED_BYTES = 1024  # equal constants up to this size become one


class Emitter:
    """Names the values that the roots depend on, and writes them down in an order that computes them."""

    def __init__(self, roots: Sequence[Value]) -> None:
        self._roots = roots
        self._order = list(_dependencies_first(roots))
        self._names: dict[tuple[int, int], str] = {}
        self._owners: dict[str, Value] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes | int], str] = {}
        self._counts: dict[str, int] = defaultdict(int)
        for value in self._all_values():
            if value.name:
                self._claim(value)

    @property
    def named(self) -> Mapping[str, Value]:
        """The values that have a name of their own."""
        return self._owners

    def emit(self, loss: Value | None, outputs: Mapping[str, Value]) -> graph_pb2.Graph:
        """Returns the message."""
        proto = graph_pb2.Graph()
        for source in self._order:
            if isinstance(source, graph_pb2.Input):
                proto.inputs.append(source)
            elif isinstance(source, graph_pb2.Parameter):
                proto.parameters.append(source)
            elif isinstance(source, Constant):
                self._emit_constant(proto, source)
            else:
                self._emit_node(proto, source)
        for name, value in outputs.items():
            proto.outputs[name] = self._name(value)
        proto.loss = "" if loss is None else self._name(loss)
        return proto

    def _emit_constant(self, proto: graph_pb2.Graph, source: Constant) -> None:
        array, key = source.array, (id(source), 0)
        if key not in self._names:
            content = (array.dtype.name, array.shape, array.tobytes() if array.nbytes <= _SHARED_BYTES else id(source))
            if content in self._shared:
                self._names[key] = self._shared[content]
                return
            self._names[key] = self._shared[content] = self._fresh("Constant")
        proto.constants.append(graph_pb2.Constant(name=self._names[key], value=tensors.encode(array)))

    def _emit_node(self, proto: graph_pb2.Graph, node: Node) -> None:
        base = f"{node.scope}/{node.op}" if node.scope else node.op
        several = node.outputs > 1
        name = self._fresh(base) if several or (id(node), 0) not in self._names else ""
        for index in range(node.outputs):
            self._names.setdefault((id(node), index), f"{name}.{index}" if several else name)
        for parameter, index in node.updates:
            self._update(proto, parameter.name, self._names[id(node), index])
        names = [
            (key, [self._name(value) for value in named] if isinstance(named, tuple) else self._name(named))
            for key, named in node.names.items()
        ]
        proto.nodes.append(
            graph_pb2.Node(
                name=name if several else "",
                op=node.op,
                inputs=["" if value is None else self._name(value) for value in node.inputs],
                outputs=[self._names[id(node), index] for index in range(node.outputs)],
                attributes={key: attribute(value) for key, value in (*node.attributes.items(), *names)},
            )
        )

    def _update(self, proto: graph_pb2.Graph, parameter: str, name: str) -> None:
        if proto.updates.get(parameter, name) != name:
            raise GraphError(f"parameter {parameter!r} has two updates; keep one of them")
        proto.updates[parameter] = name

    def _name(self, value: Value) -> str:
        return self._names[id(value.source), value.index]

    def _fresh(self, base: str) -> str:
        while True:
            count = self._counts[base]
            self._counts[base] += 1
            name = f"{base}_{count}" if count else base
            if name not in self._owners:
                return name

    def _claim(self, value: Value) -> None:
        key = (id(value.source), value.index)
        owner = self._owners.setdefault(value.name, value)
        if (id(owner.source), owner.index) != key:
            raise GraphError(f"{owner!r} and {value!r} are different values of the same name; rename one of them")
        if self._names.setdefault(key, value.name) != value.name:
            raise GraphError(
                f"{self._names[key]!r} and {value.name!r} name one and the same value; keep one of the names"
            )

    def _all_values(self) -> Iterator[Value]:
        for source in self._order:
            if isinstance(source, Node):
                yield from source.sources
        yield from self._roots


def _dependencies_first(roots: Sequence[Value]) -> Iterator[Source]:
    """Yields every source that the roots depend on, each after those it depends on, depth first from the left."""
    done: set[int] = set()
    stack: list[tuple[Source, bool]] = [(value.source, False) for value in reversed(roots)]
    while stack:
        source, ready = stack.pop()
        if id(source) in done:
            continue
        if ready or not isinstance(source, Node):
            done.add(id(source))
            yield source
        else:
            stack.append((source, True))
            stack.extend((value.source, False) for value in reversed(source.sources))


def attribute(value: AttributeValue) -> graph_pb2.Attribute:
    """Returns the message for the value of an attribute; raises GraphError for a kind that ONNX does not have."""
    if isinstance(value, np.ndarray):
        return graph_pb2.Attribute(tensor=tensors.encode(value))
    if isinstance(value, str):
        return graph_pb2.Attribute(text=value)
    if isinstance(value, int | np.integer):
        return graph_pb2.Attribute(integer=int(value))
    if isinstance(value, float | np.floating):
        return graph_pb2.Attribute(number=float(value))
    items: list[Any] = list(value)
    if all(isinstance(item, int | np.integer) for item in items):
        return graph_pb2.Attribute(integers=graph_pb2.Attribute.Integers(items=[int(item) for item in items]))
    if all(isinstance(item, int | float | np.number) for item in items):
        return graph_pb2.Attribute(numbers=graph_pb2.Attribute.Numbers(items=[float(item) for item in items]))
    if all(isinstance(item, str) for item in items):
        return graph_pb2.Attribute(texts=graph_pb2.Attribute.Texts(items=[str(item) for item in items]))
    raise GraphError(f"{value!r} cannot be an attribute; use numbers, texts, lists of them, or an array")
