"""Graph: what is sent to the server, made from the values that it shall compute."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from backwire import _arrays, _html
from backwire._builder import _shapes
from backwire._builder._graph_emitter import Emitter
from backwire._builder._node import checked_name
from backwire._builder._value import Value
from backwire._errors import DTypeError, GraphError, ShapeError, UnknownNameError
from backwire_api import tensors
from backwire_api.v1 import graph_pb2

LOSS = "loss"


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
    if not isinstance(outputs, Mapping | None):
        raise GraphError(f"outputs is {outputs!r}; name them by a dictionary, such as outputs={{'logits': logits}}")
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
    emitter = Emitter(roots)
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
