"""What all models of a graph have in common: that it was checked, what calls on it may ask for, and its plans."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set

from backwire_server.engine import ops as _ops  # noqa: F401  # fills the operator table
from backwire_server.engine.backward_plan import seed_name
from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.builder import RANDOM_KEY, Builder
from backwire_server.engine.differentiate import is_float, undifferentiable
from backwire_server.engine.dims import may_equal
from backwire_server.engine.errors import GraphError, MissingInput, NotDifferentiable, UnknownOutput
from backwire_server.engine.graph import LOSS, Array, Graph, TensorType
from backwire_server.engine.plan import Plan, check_updates, compile_plan
from backwire_server.engine.replay import replay
from backwire_server.engine.stopping import NEVER, Stop

CACHED_PLANS = (
    64  # a plan is a list of kernel calls; shapes vary little in training, and a hostile client gains nothing
)

Place = tuple[tuple[tuple[str, tuple[int, ...]], ...], tuple[str, ...], bool, bool]
"""What a plan is for: the shapes of the inputs by name, the outputs, whether the loss is one, whether it trains."""


class PlanCache:
    """A checked graph, and the plans that follow from it and from shapes alone. For any number of threads at once.

    Creating it raises EngineError for a graph that is wrong; see `Model`. It holds no elements but those of the graph's
    constants and what follows from them, so that those who share it learn nothing of each other's values.

    Attributes:
        graph: The graph, which must not change.
        trainable: The names of the parameters that have gradients.
        inputs: The inputs by name.
        passing: The names of what programs are given that is another array in each pass.
    """

    def __init__(self, graph: Graph, stop: Stop = NEVER) -> None:
        """Checks the graph, unless that is stopped."""
        self.graph = graph
        self.trainable = tuple(p.name for p in graph.parameters if not p.frozen)
        self.inputs = {item.name: item for item in graph.inputs}
        self.passing = frozenset([RANDOM_KEY, *self.inputs, *graph.updates, *map(seed_name, [LOSS, *graph.outputs])])
        self._mutex = threading.Lock()
        self._plans: OrderedDict[Place, Plan | frozenset[str]] = OrderedDict()
        self._admitted: dict[object, Place] = {}
        _check(graph, self.trainable, stop)

    @property
    def nbytes(self) -> int:
        """About the bytes that its plans hold."""
        with self._mutex:
            return sum(each.nbytes for each in self._plans.values() if isinstance(each, Plan))

    @property
    def compiled(self) -> int:
        """How many functions other executors have made of its plans; `nbytes` does not have their machine code."""
        with self._mutex:
            return sum(each.compiled for each in self._plans.values() if isinstance(each, Plan))

    def admit(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None, training: bool) -> Place:
        """Returns what is to be computed; raises EngineError for names, shapes and types that are wrong.

        That depends on names, shapes and types alone, so those of a call that was admitted are admitted again.
        """
        given = tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])
        key = (given, None if outputs is None else tuple(outputs), training)
        if (known := self._admitted.get(key)) is not None:
            return known
        names = tuple(sorted(self.graph.outputs) if outputs is None else dict.fromkeys(outputs))
        feeds = bind_inputs(self.inputs, inputs)
        with_loss = self._needs_loss(names, feeds.keys(), training)
        self._require(names, with_loss, feeds.keys(), self.graph.updates if training else {})
        place = (tuple((name, feeds[name].shape) for name in sorted(feeds)), names, with_loss, training)
        if outputs is None or len(outputs) == len(names):  # a name that comes again and again would take room
            with self._mutex:
                if len(self._admitted) >= CACHED_PLANS:
                    self._admitted.clear()
                self._admitted[key] = place
        return place

    def plan(
        self, place: Place, feeds: Mapping[str, Array], known: Mapping[str, Array], stop: Stop = NEVER
    ) -> Plan | frozenset[str]:
        """Returns the plan for a place, specialised on the elements in `known`; one that is so is the caller's alone.

        Returns the names of further feeds to specialise on when a shape turns out to depend on their elements.
        Raises Stopped when that is wanted; nothing of what was begun is kept.
        """
        if known:
            return self._compile(place, feeds, known, stop)
        with self._mutex:
            if (found := self._plans.get(place)) is not None:
                self._plans.move_to_end(place)
                return found
        made = self._compile(place, feeds, known, stop)  # others need not wait for it; who comes second takes the first
        with self._mutex:
            found = self._plans.setdefault(place, made)
            if len(self._plans) > CACHED_PLANS:
                self._plans.popitem(last=False)
            return found

    def _compile(
        self, place: Place, feeds: Mapping[str, Array], known: Mapping[str, Array], stop: Stop
    ) -> Plan | frozenset[str]:
        _, names, with_loss, training = place
        return compile_plan(self.graph, self.trainable, feeds, known, names, with_loss, training, stop)

    def _needs_loss(self, names: Sequence[str], feeds: Set[str], training: bool) -> bool:
        if self.graph.loss is None:
            if LOSS in names:
                raise UnknownOutput("the graph has no loss", field="outputs")
            return False
        available = self.inputs.keys() & self.graph.dependencies([self.graph.loss]) <= feeds
        return training or available or LOSS in names

    def _require(self, names: Sequence[str], with_loss: bool, feeds: Set[str], updates: Mapping[str, str]) -> None:
        for name in names:
            if name != LOSS and name not in self.graph.outputs:
                known = ", ".join(sorted(self.graph.outputs)) or "none"
                raise UnknownOutput(f"the graph has no output {name!r}; its outputs are: {known}", field="outputs")
        targets = self.graph.targets([*names, *([LOSS] if with_loss else [])])
        targets.update((f"update of {name}", value) for name, value in updates.items())
        needed = self.graph.dependencies(targets.values())
        for name in self.inputs:
            if name in needed and name not in feeds:
                wanted = next(o for o, value in targets.items() if name in self.graph.dependencies([value]))
                raise MissingInput(f"input {name!r} is missing, and {wanted!r} depends on it; send it", field="inputs")


def _check(graph: Graph, trainable: Sequence[str], stop: Stop) -> None:
    """Raises EngineError when types do not fit together, whatever the symbolic dimensions turn out to be."""
    builder = Builder(training=True, abstract=True)
    values = {item.name: builder.leaf(item.name, item.type) for item in graph.inputs}
    values.update((item.name, builder.leaf(item.name, item.type)) for item in graph.parameters)
    values.update((name, builder.constant(array)) for name, array in graph.constants.items())
    for node in graph.topological_nodes:
        if stop.wanted:
            stop.heed()
        replay(builder, node, values)
    check_updates(graph, {name: builder.types[value.name] for name, value in values.items()})
    if graph.loss is None:
        return
    loss = values[graph.loss].name
    if (type_ := builder.types[loss]) is not None:
        _check_loss(graph.loss, type_)
    if node_without := undifferentiable(builder, [loss], trainable):
        raise NotDifferentiable(
            f"{node_without.described} has no gradient, but lies between the loss and a "
            "trainable parameter; take it off that path, or freeze the parameters before it",
            field=f"graph.nodes[{node_without.label}]",
        )


def _check_loss(name: str, type_: TensorType) -> None:
    if not is_float(type_.dtype) or not all(may_equal(dim, 1) for dim in type_.shape):
        raise GraphError(f"the loss {name!r} is {type_}; it must be one floating-point element", field="graph.loss")
