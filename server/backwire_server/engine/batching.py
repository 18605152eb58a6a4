"""Where the examples of a batch lie in each value of a graph, and at which node they meet.

A graph whose examples never meet, but in a mean of them all, gives for each part of a batch what the whole batch gives
for these examples. Each node's rule (`batch_rules`) says along which axis its result has the examples if its inputs
have them along certain ones; an operator without a rule lets them meet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from backwire_server.engine import ops as _ops  # noqa: F401  # fills the operator table
from backwire_server.engine.batch_rules import MAKING, mean_of, rows_of
from backwire_server.engine.batch_setting import PLACES, Meeting, Setting, spread
from backwire_server.engine.batch_states import MEAN, OPEN, Mixed, Open, Rows, State
from backwire_server.engine.builder import Builder
from backwire_server.engine.dims import Dim, Symbolic, UnknownDimension, mentions
from backwire_server.engine.emitted import Emitted
from backwire_server.engine.graph import Array, Graph, Node, TensorType
from backwire_server.engine.replay import replay
from backwire_server.engine.stopping import NEVER, Stop
from backwire_server.engine.values import NeedsValue, Value

WEIGHTED = frozenset({"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"})
"""Whose mean over examples of unequal weights counts as one: see the guide to data parallelism."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What is known of the values of a graph by name: states, types, and the elements of floats that are constant."""

    states: Mapping[str, State]
    types: Mapping[str, TensorType | None]
    constants: Mapping[str, Array]


def follow(
    graph: Graph,
    types: Mapping[str, TensorType],
    axes: Mapping[str, int],
    batch: Dim,
    other: Followed | None = None,
    stop: Stop = NEVER,
) -> Followed:
    """Returns the state of each value that follows from inputs of these types, as a pass in training computes it.

    `axes` says along which axis inputs have the examples; `batch` is how many there are: a symbol, or a large prime, so
    that no other dimension is divided by it. Where a type depends on a size that is not known, the state is OPEN.
    `other` is what was found for another number of examples: a constant that differs was computed from that number.
    Raises EngineError when the graph does not fit the types, and Stopped between two nodes when that is wanted.
    """
    return _Walk(graph, types, axes, batch, other, stop).followed()


@dataclass(slots=True)
class _Walk:
    """One walk through a graph; `found` are states by the builder's names of values."""

    graph: Graph
    types: Mapping[str, TensorType]
    axes: Mapping[str, int]
    batch: Dim
    other: Followed | None
    stop: Stop
    builder: Builder = field(init=False)
    values: dict[str, Value] = field(default_factory=dict)
    found: dict[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.builder = Builder(training=True, precision=self.graph.precision)

    def followed(self) -> Followed:
        for name, type_ in self.types.items():
            self.values[name] = self.builder.leaf(name, type_)
            self.found[name] = Rows(self.axes[name]) if name in self.axes else None
        for parameter in self.graph.parameters:
            self.values[parameter.name] = self.builder.leaf(parameter.name, parameter.type)
        self.values.update((name, self.builder.constant(array)) for name, array in self.graph.constants.items())
        places = {id(node): place for place, node in enumerate(self.graph.nodes)}
        for node in self.graph.topological_nodes:
            if self.stop.wanted:
                self.stop.heed()
            if all(name in self.values for name in node.sources):
                self._pass(node, places[id(node)])
        states = {name: self.found.get(value.name) for name, value in self.values.items()}
        types = {name: self.builder.types[value.name] for name, value in self.values.items()}
        return Followed(states, types, dict(self._constants()))

    def _pass(self, node: Node, place: int) -> None:
        """Emits a node of the graph, and finds the states of what it is made of."""
        first, known = len(self.builder.nodes), True
        try:
            replay(self.builder, node, self.values)
        except (UnknownDimension, NeedsValue):
            known = False
        for emitted in self.builder.nodes[first:]:  # later nodes may share what was emitted of one that stays open
            self.found.update(zip(emitted.outputs, self._states(emitted, node, place), strict=True))
        if known:
            self._settle_weighted(node, place)
            self._note_counts(node, place)
        else:
            self._leave_open(node)

    def _leave_open(self, node: Node) -> None:
        given = [self.found.get(self.values[name].name) for name in node.sources]
        mixed = next((state for state in given if isinstance(state, Mixed)), None)
        for name in filter(None, node.outputs):
            self.values[name] = self.builder.leaf(f"%open:{name}", None)
            self.found[self.values[name].name] = mixed or (OPEN if any(given) else None)

    def _states(self, emitted: Emitted, node: Node, place: int) -> tuple[State, ...]:
        states = tuple(self._state(name, node, place) if name else None for name in emitted.inputs)
        if mixed := next((state for state in states if isinstance(state, Mixed)), None):
            return (mixed,) * len(emitted.outputs)
        if any(isinstance(state, Open) for state in states):
            return (OPEN,) * len(emitted.outputs)
        setting = Setting(self.builder, emitted, states, self.batch)
        try:
            if MEAN in states:
                return mean_of(setting)
            if any(states) or emitted.op.name in MAKING:
                return rows_of(setting)
        except Meeting as meeting:
            return (Mixed(node.op, node.label, place, str(meeting)),) * len(emitted.outputs)
        except UnknownDimension:
            return (OPEN,) * len(emitted.outputs)
        return (None,) * len(emitted.outputs)

    def _state(self, name: str, node: Node, place: int) -> State:
        """Returns the state of a value; a constant that is made for so many examples must be the same for each."""
        array = self.builder.constants.get(name)
        if name not in self.found and array is not None:
            state = spread(array.shape, self.batch)
            if isinstance(state, Rows) and not np.array_equal(
                array, np.broadcast_to(array.take([0], state.axis), array.shape)
            ):
                state = Mixed(node.op, node.label, place, PLACES)
            self.found[name] = state
        return self.found.get(name)

    def _settle_weighted(self, node: Node, place: int) -> None:
        """Takes a loss whose examples have weights of their own for a mean of them."""
        name = self.values[node.outputs[0]].name if node.outputs[0] else ""
        state = self.found.get(name)
        if node.op in WEIGHTED and isinstance(state, Mixed) and state.place == place:
            scores, labels, *weights = (self.found.get(self.values[each].name) for each in node.inputs if each)
            apart = isinstance(scores, Rows) and isinstance(labels, Rows) and not any(weights)
            if apart and node.attributes.get("reduction", "mean") == "mean":
                self.found[name] = MEAN

    def _note_counts(self, node: Node, place: int) -> None:
        """Finds what follows from how many examples there are: shapes besides the axis of examples, and floats."""
        for name in filter(None, node.outputs):
            state = self._state(self.values[name].name, node, place)
            if not isinstance(state, Open | Mixed) and self._is_counted(name, state):
                self.values[name] = self.builder.leaf(f"%counted:{name}", self.builder.types[self.values[name].name])
                how = "computes with the number of examples, which differs from part to part"
                self.found[self.values[name].name] = Mixed(node.op, node.label, place, how)

    def _is_counted(self, name: str, state: State) -> bool:
        value, batch = self.values[name].name, self.batch
        dims = _besides(self.builder.types[value], state)
        if isinstance(batch, Symbolic):
            return any(mentions(dim, batch) for dim in dims)
        if self.other is None or name not in self.other.types:
            return False
        before, array = self.other.constants.get(name), self.builder.constants.get(value)
        if before is not None and array is not None and not np.array_equal(_one(before, state), _one(array, state)):
            return True
        there = self.other.states.get(name)
        alike = there if isinstance(there, Rows) and isinstance(state, Rows) else state
        return dims != _besides(self.other.types[name], alike)

    def _constants(self) -> Iterator[tuple[str, Array]]:
        for name, value in self.values.items():
            array = self.builder.constants.get(value.name)
            if array is not None and array.dtype.kind not in "biu" and not isinstance(self.batch, Symbolic):
                yield name, array


def _besides(type_: TensorType | None, state: State) -> tuple[Dim, ...]:
    """Returns the sizes that are to be the same for any number of examples: all but that along which they lie."""
    shape = () if type_ is None else type_.shape
    if not isinstance(state, Rows):
        return shape
    return (*shape[: state.axis], *shape[state.axis + 1 :], state.outer, state.inner)


def _one(array: Array, state: State) -> Array:
    """Returns what a constant has for one example, which is the same for each."""
    return array.take([0], state.axis) if isinstance(state, Rows) else array
