"""Compiles a graph for concrete input shapes: one program forward, one backward for each way to differentiate."""

import threading
from collections.abc import Mapping, Sequence
from functools import partial

from backwire_server.engine.backward_plan import NODE_BYTES, BackwardPlan, differentiated
from backwire_server.engine.builder import RANDOM_KEY, Builder
from backwire_server.engine.cost import Cost
from backwire_server.engine.derived import derived
from backwire_server.engine.differentiate import is_float
from backwire_server.engine.dims import may_equal
from backwire_server.engine.errors import DtypeMismatch, GraphError, ShapeMismatch
from backwire_server.engine.graph import LOSS, Array, Graph, TensorType
from backwire_server.engine.narrow import is_narrow
from backwire_server.engine.precision import needs_scale
from backwire_server.engine.program import Program
from backwire_server.engine.replay import replay
from backwire_server.engine.runner import Runner
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.engine.values import NeedsValue, Value

CACHED_BACKWARD = 16  # ways to differentiate a plan; a client uses one or two, and a hostile one gains nothing


class Plan:
    """The forward program for one set of input shapes, and the backward programs that go with it.

    Once linked it may be used by several threads at once.

    Attributes:
        program: The forward program, once `link` has made it.
        residuals: The names of the values that a pass keeps; none unless in training.
        names: What `run` returns, in the order of the program's targets.
        usual: How a pass is expected to be differentiated, as the arguments of `backward`; None when it cannot be.
        nbytes: About the bytes that it holds, with the backward programs that are kept.
    """

    def __init__(
        self,
        builder: Builder,
        values: Mapping[str, Value],
        graph: Graph,
        trainable: Sequence[str],
        training: bool,
        stop: Stop = NEVER,
    ) -> None:
        self._builder = builder
        self._graph = graph
        self._values = values
        self._differentiate = partial(differentiated, builder, graph, values)
        self._backward: dict[object, BackwardPlan] = {}
        self._mutex = threading.Lock()
        self.residuals: tuple[str, ...] = ()
        self.usual: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self.program: Program
        self.nbytes = 0
        self._usual_flops = 0
        self.names: tuple[str, ...] = ()
        self._updates = graph.updates if training else {}
        self._forward_values = frozenset(builder.types)
        self._leaves = frozenset([RANDOM_KEY, *(i.name for i in graph.inputs), *(p.name for p in graph.parameters)])
        if training:
            self._keep_residuals(trainable, stop)

    @derived
    def cost(self) -> Cost:
        """What a pass takes: of a training one the usual way to differentiate counts too, but for its memory."""
        return Cost(self.program.flops + self._usual_flops, self.program.schedule.peak_bytes)

    @property
    def compiled(self) -> int:
        """How many functions other executors have made of its programs."""
        return len(self.program.compiled) + sum(len(way.program.compiled) for way in list(self._backward.values()))

    def link(self, names: Sequence[str]) -> None:
        """Makes the forward program that returns the named outputs, the updates and the residuals."""
        targets = self._graph.targets(names)
        wanted = {name: self._values[value].name for name, value in targets.items()}
        wanted.update((update_name(name), self._values[value].name) for name, value in self._updates.items())
        kept = range(len(wanted), len(wanted) + len(self.residuals))
        wanted.update((name, name) for name in self.residuals)
        self.names = tuple(wanted)
        self.program = Program(self._builder, tuple(wanted.values()), self._leaves, kept)
        elements = sum(array.nbytes for array in self._builder.known.values())
        self.nbytes = self._forward_bytes = len(self._builder.nodes) * NODE_BYTES + elements

    def run(self, feeds: Mapping[str, Array], frame: Runner | None = None, stop: Stop = NEVER) -> dict[str, Array]:
        """Returns outputs and loss by output name, updates by `update_name`, and residuals by value name."""
        found = frame.run(feeds, stop=stop) if frame else self.program.run(feeds, stop)
        return dict(zip(self.names, found, strict=True))

    def types(self) -> dict[str, TensorType]:
        """Returns the type of each value of the graph that can be computed from the inputs."""
        return {name: value.type for name, value in self._values.items()}

    def output_type(self, name: str) -> TensorType | None:
        """Returns the type of an output for this plan's shapes, None when it cannot be computed from its inputs."""
        value = self._values.get(self._graph.targets([name])[name])
        return None if value is None else value.type

    def backward(self, seeds: tuple[str, ...], wrt: tuple[str, ...], stop: Stop = NEVER) -> BackwardPlan:
        """Returns the program for gradients of the seeded outputs (none: of the loss) with respect to leaves."""
        key = (seeds, wrt)
        if (found := self._backward.get(key)) is not None:
            return found
        made = self._differentiate(seeds, wrt, self._leaves | set(self.residuals), source=self.program, stop=stop)
        made.counted = key == self.usual
        with self._mutex:
            if len(self._backward) >= CACHED_BACKWARD:
                self._backward = {each: way for each, way in self._backward.items() if each == self.usual}
            found = self._backward.setdefault(key, made)
            self.nbytes = self._forward_bytes + sum(way.nbytes for way in self._backward.values())
            return found

    def _keep_residuals(self, trainable: Sequence[str], stop: Stop) -> None:
        """Decides what the pass keeps: what the usual backward program needs. Others compute the rest again."""
        self.usual = self._usual(trainable)
        if self.usual is not None:
            found = self._differentiate(*self.usual, self._forward_values, stop=stop)
            self._usual_flops = found.program.flops
            outside = self._forward_values - self._leaves
            wanted = [name for name in found.program.feeds if name in outside]
            again = self._rounded({*wanted, *self._leaves})
            self.residuals = tuple(name for name in wanted if name not in again)

    def _rounded(self, at_hand: set[str]) -> set[str]:
        """Returns the values of two bytes that casting another of these gives: that takes less than to keep them."""
        types, casts = self._builder.types, [node for node in self._builder.nodes if node.op.name == "Cast"]
        made = {node.outputs[0] for node in casts if node.inputs[0] in at_hand}
        return {name for name in made if (type_ := types[name]) is not None and is_narrow(type_.dtype)}

    def _usual(self, trainable: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Returns seeds and leaves: loss by parameters, else all outputs by parameters and inputs, if there are any."""
        if self._graph.loss is not None:
            return (LOSS,) if needs_scale(self._graph.precision) else (), tuple(trainable)
        inputs = [item.name for item in self._graph.inputs if is_float(item.type.dtype)]
        types = {name: self._values[value].type for name, value in self._graph.outputs.items() if value in self._values}
        outputs = tuple(sorted(name for name, type_ in types.items() if is_float(type_.dtype)))
        return (outputs, (*trainable, *inputs)) if outputs else None


def compile_plan(
    graph: Graph,
    trainable: Sequence[str],
    feeds: Mapping[str, Array | TensorType],
    known: Mapping[str, Array],
    names: Sequence[str],
    with_loss: bool,
    training: bool,
    stop: Stop = NEVER,
) -> Plan | frozenset[str]:
    """Compiles for the shapes of `feeds`, specialised on the elements in `known`.

    Returns the names of further leaves to specialise on when a shape turns out to depend on their elements.
    Raises Stopped between two nodes when that is wanted.
    """
    builder = Builder(training=training, known=known, precision=graph.precision)
    try:
        values = _replay(builder, graph, feeds, stop)
        if with_loss:
            assert graph.loss is not None
            _check_one_element(graph.loss, values[graph.loss])
        if training:
            check_updates(graph, {name: value.type for name, value in values.items()})
        plan = Plan(builder, values, graph, trainable, training, stop)
        plan.link([*names, *([LOSS] if with_loss else [])])
    except NeedsValue as needed:
        return _leaves_below(builder, needed.names)
    return plan


def _replay(builder: Builder, graph: Graph, feeds: Mapping[str, Array | TensorType], stop: Stop) -> dict[str, Value]:
    """Emits every node whose inputs can be computed from the feeds."""
    values = {name: builder.leaf(name, TensorType(feed.dtype, feed.shape)) for name, feed in feeds.items()}
    values.update((name, builder.constant(array)) for name, array in graph.constants.items())
    for node in graph.topological_nodes:
        if stop.wanted:
            stop.heed()
        if all(name in values for name in node.sources):
            replay(builder, node, values)
    builder.leave()
    return values


def _check_one_element(name: str, value: Value) -> None:
    if any(size != 1 for size in value.sizes):
        raise ShapeMismatch(
            f"the loss {name!r} has shape {list(value.sizes)}; reduce it to one element", field="graph.loss"
        )
    if not is_float(value.dtype):
        raise GraphError(f"the loss {name!r} is {value.dtype.name}; it must be floating-point", field="graph.loss")


def check_updates(graph: Graph, types: Mapping[str, TensorType | None]) -> None:
    """Raises DtypeMismatch or ShapeMismatch where an update certainly has another type than its parameter."""
    for parameter in graph.parameters:
        found = types.get(graph.updates.get(parameter.name, ""))
        if found is not None:
            message = f"parameter {parameter.name!r} is {parameter.type}, but its update is {found}; they must agree"
            if found.dtype != parameter.type.dtype:
                raise DtypeMismatch(message, field="graph.updates")
            sizes = zip(found.shape, parameter.type.shape, strict=False)
            if len(found.shape) != len(parameter.type.shape) or not all(may_equal(a, b) for a, b in sizes):
                raise ShapeMismatch(message, field="graph.updates")


def _leaves_below(builder: Builder, names: frozenset[str]) -> frozenset[str]:
    """Returns the leaves that the named values are computed from."""
    pending = set(names)
    for node in reversed(builder.nodes):
        if not pending.isdisjoint(node.outputs):
            pending.update(filter(None, node.inputs))
    produced = {name for node in builder.nodes for name in node.outputs}
    return frozenset(pending - produced - builder.constants.keys() - {RANDOM_KEY})


def update_name(parameter: str) -> str:
    """Returns the name of a parameter's update among the results of a plan."""
    return f"%update:{parameter}"
