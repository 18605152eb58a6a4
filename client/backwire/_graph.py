"""Graph: what is sent to the server, made from the values that it shall compute."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backwire import _arrays, _html, _shapes
from backwire._errors import DTypeError, GraphError, ShapeError, UnknownNameError
from backwire._value import AttributeValue, Constant, Node, Source, Value, checked_name
from backwire_api import tensors
from backwire_api.v1 import graph_pb2

LOSS = "loss"
_SHARED_BYTES = 1024  # equal constants up to this size become one


@dataclass(frozen=True, slots=True, repr=False)
class Graph:
    """A computation graph, ready to be sent. Make one with `bw.graph`.

    Attributes:
        proto: The message `backwire_api.v1.Graph`; treat it as read-only. `str(graph)` lists what is in it.
        values: What the graph was made from: its outputs by their output names, the loss as `loss`, and every value
            that has a name.
    """

    proto: graph_pb2.Graph
    values: Mapping[str, Value] = field(default_factory=dict, compare=False)

    def value(self, name: str) -> Value:
        """Returns an output, an input, a parameter or another named value, to build on.

        Raises:
            UnknownNameError: The graph has no value of this name.

        Example:
            >>> x = bw.input("x", ("batch", 3))
            >>> model = bw.graph(outputs={"logits": bw.dense(x, 2, name="last")})
            >>> labels = bw.input("labels", ("batch",), dtype="int64")
            >>> trained = bw.graph(loss=bw.softmax_cross_entropy(model.value("logits"), labels))
        """
        if name in self.values:
            return self.values[name]
        known = ", ".join([*self.proto.outputs, *(item.name for item in self.proto.inputs)])
        raise UnknownNameError(f"the graph has no value {name!r}; its outputs and inputs are: {known}")

    def __repr__(self) -> str:
        p = self.proto
        return f"<Graph: {len(p.inputs)} inputs, {len(p.parameters)} parameters, {len(p.nodes)} nodes, loss {p.loss!r}>"

    def __str__(self) -> str:
        return "\n".join(_lines(self.proto))

    def _repr_html_(self) -> str:
        """What a notebook shows: inputs and outputs, and the whole listing when it is asked for."""
        p = self.proto
        facts = (f"{len(p.inputs)} inputs", f"{len(p.parameters)} parameters", f"{len(p.nodes)} nodes")
        loss = [("loss", LOSS, p.loss)] if p.loss else []
        inputs = [("input", each.name, _shapes.show(_input_shape(each))) for each in p.inputs]
        rows = [*inputs, *(("output", *output) for output in p.outputs.items()), *loss]
        return _html.heading("Graph", *facts) + _html.table(("", "name", ""), rows) + _html.folded("all", str(self))


def graph(*, loss: Value | None = None, outputs: Mapping[str, Value] | None = None) -> Graph:
    """Returns the graph that computes a loss, outputs, or both.

    Only what they depend on becomes part of it. Values keep the names they were given; others are named after their op
    and, in a layer, after the layer: `Relu`, `Relu_1`, `hidden/Gemm`.

    Args:
        loss: The value that training lowers: floating-point, one element.
        outputs: What Forward returns, by name. The name `loss` is reserved.

    Raises:
        GraphError: Two inputs, parameters or values have the same name, or there is nothing to compute.
        ShapeError: The loss has more than one element.
        DTypeError: The loss is not floating-point.

    Example:
        >>> x, y, w = (bw.input(name, ()) for name in "xyw")
        >>> print(bw.graph(outputs={"z": (x + y) * w}))
        input     x: float32[]
        input     y: float32[]
        input     w: float32[]
        Add = Add(x, y)
        Mul = Mul(Add, w)
        output    z = Mul
    """
    results = {
        checked_name(name): _checked_value(value, f"outputs[{name!r}]") for name, value in (outputs or {}).items()
    }
    if results.pop(LOSS, loss) is not loss:
        raise GraphError("the output name 'loss' is reserved for the loss; rename that output, or pass loss=")
    if loss is not None:
        _check_loss(_checked_value(loss, "loss"))
    roots = [*([loss] if loss is not None else []), *results.values()]
    if not roots:
        raise GraphError("a graph without loss and outputs computes nothing; pass loss=, outputs=, or both")
    emitter = _Emitter(roots)
    proto = emitter.emit(loss, results)
    return Graph(proto, {**emitter.named, **results, **({LOSS: loss} if loss is not None else {})})


def as_graph(of: Graph | Value) -> Graph:
    """Returns the graph, or for a value the graph whose loss it is."""
    if isinstance(of, Graph | Value):
        return of if isinstance(of, Graph) else graph(loss=of)
    raise GraphError(f"{of!r} is neither a Graph nor a Value; make one with bw.graph(loss=...)")


def _checked_value(value: object, what: str) -> Value:
    if isinstance(value, Value):
        return value
    raise GraphError(f"{what} is {value!r}, which is no Value; combine inputs and parameters into one")


def _check_loss(loss: Value) -> None:
    if not _arrays.is_float(loss.dtype):
        raise DTypeError(f"the loss {loss!r} is not floating-point; convert it with bw.cast(value, 'float32')")
    if any(dim not in (1, None) for dim in loss.shape or ()):
        raise ShapeError(f"the loss {loss!r} has more than one element; reduce it with bw.mean or bw.sum")


class _Emitter:
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


def _input_shape(entry: graph_pb2.Input) -> tuple[int | str, ...]:
    return tuple(dim.symbol or dim.size for dim in entry.shape)


def _lines(proto: graph_pb2.Graph) -> Iterator[str]:
    for entry in proto.inputs:
        yield f"input     {entry.name}: {tensors.dtype_of(entry.dtype).name}{_shapes.show(_input_shape(entry))}"
    for item in proto.parameters:
        typed = item.value if item.HasField("value") else item.initializer
        frozen = " frozen" if item.frozen else ""
        yield f"parameter {item.name}: {tensors.dtype_of(typed.dtype).name}{_shapes.show(tuple(typed.shape))}{frozen}"
    for constant in proto.constants:
        value = constant.value
        text = f" = {tensors.decode(value)}" if not value.shape else ""
        yield f"constant  {constant.name}: {tensors.dtype_of(value.dtype).name}{_shapes.show(tuple(value.shape))}{text}"
    for node in proto.nodes:
        yield f"{', '.join(node.outputs)} = {node.op}({', '.join(name or '-' for name in node.inputs)})"
    for name, value_name in proto.outputs.items():
        yield f"output    {name} = {value_name}"
    if proto.loss:
        yield f"loss      {proto.loss}"
