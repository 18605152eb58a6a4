"""A graph made ready to run: checks what it is given, compiles per shape, runs forward and backward passes."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from backwire_server.engine import ops as _ops  # noqa: F401  # fills the operator table
from backwire_server.engine.binding import bind_inputs
from backwire_server.engine.builder import RANDOM_KEY, Builder
from backwire_server.engine.differentiate import is_float, undifferentiable
from backwire_server.engine.dims import may_equal, product, show
from backwire_server.engine.errors import (
    DtypeMismatch,
    GraphError,
    MissingInput,
    NotDifferentiable,
    ShapeMismatch,
    UnknownInput,
    UnknownOutput,
)
from backwire_server.engine.frame import Workspace
from backwire_server.engine.frames import FramePool, Lease
from backwire_server.engine.graph import LOSS, Array, Graph, TensorType
from backwire_server.engine.plan import Plan, check_updates, compile_plan, seed_name, update_name
from backwire_server.engine.replay import replay

CACHED_PLANS = (
    64  # a plan is a list of kernel calls; shapes vary little in training, and a hostile client gains nothing
)
WARM_PLANS = 4  # of these the memory is kept: training and evaluation, and the last batch of each, which is smaller

_Place = tuple[tuple[tuple[str, tuple[int, ...]], ...], tuple[str, ...], bool, bool]
"""What a plan is for: the shapes of the inputs by name, the outputs, whether the loss is one, whether it trains."""
_NOTHING: frozenset[str] = frozenset()


@dataclass(slots=True)
class Pass:
    """What a forward computation returned and, in train mode, what its backward computation needs.

    `outputs` are the requested ones by name; `loss` is None when it was not computed; `updates` are the next values of
    the frozen parameters that the graph updates. The arrays must not be written. The residuals lie in memory that
    another pass uses once the lease is gone.
    """

    outputs: dict[str, Array]
    loss: float | None
    plan: Plan
    feeds: dict[str, Array]
    residuals: dict[str, Array] = field(default_factory=dict)
    updates: dict[str, Array] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    lease: Lease | None = None

    @property
    def nbytes(self) -> int:
        """The bytes that keeping the pass costs: residuals and inputs, each buffer once; parameters are not counted."""
        owned = [array for name, array in self.feeds.items() if name not in self.parameters]
        residuals = [] if self.lease else self.residuals.values()
        buffers = {id(base): base.nbytes for base in map(_owner, [*owned, *residuals])}
        for name in self.parameters & self.feeds.keys():
            buffers.pop(id(_owner(self.feeds[name])), None)
        return sum(buffers.values()) + (self.lease.forward.kept_bytes if self.lease else 0)


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients by name. A parameter without a path to what was differentiated is absent; inputs never are."""

    parameters: dict[str, Array]
    inputs: dict[str, Array]


class Model:
    """A checked graph with its compiled plans.

    Creating it raises EngineError when shapes or types do not fit together, whatever the symbolic dimensions turn out
    to be; when the loss is not one floating-point element; or when a trainable parameter reaches the loss only through
    an operator without a gradient. Calls on one Model must not overlap. Between calls it keeps memory to work in, which
    `trim` gives up. Without `planned` it calls kernel after kernel instead, each making new arrays: slow, and simple.
    """

    def __init__(self, graph: Graph, *, planned: bool = True) -> None:
        self.graph = graph
        self.trainable = tuple(p.name for p in graph.parameters if not p.frozen)
        self._inputs = {item.name: item for item in graph.inputs}
        self._plans: OrderedDict[object, Plan] = OrderedDict()
        self._specialised: dict[_Place, frozenset[str]] = {}
        self._admitted: dict[object, _Place] = {}
        self._planned = planned
        self._workspace = Workspace()
        self._warm: OrderedDict[Plan, FramePool] = OrderedDict()
        self._passing = frozenset([RANDOM_KEY, *self._inputs, *graph.updates, *map(seed_name, [LOSS, *graph.outputs])])
        self._check()

    def forward(
        self,
        inputs: Mapping[str, Array],
        parameters: Mapping[str, Array],
        *,
        training: bool,
        outputs: Sequence[str] | None = None,
        key: tuple[int, int] = (0, 0),
    ) -> Pass:
        """Computes the named outputs (all when None) and the loss; in training also what `backward` needs.

        `parameters` holds every parameter by name. `key` is what random numbers are drawn from: a seed and the number
        of the pass. Raises EngineError when names, shapes or types are wrong, or an element is not acceptable.
        """
        place = self._place(inputs, outputs, training)
        _, names, with_loss, _ = place
        feeds = {**inputs, **parameters, RANDOM_KEY: np.array(key, np.uint64)}
        plan = self._plan(feeds, place)
        lease = self._pool(plan).lease() if self._planned else None
        values = plan.run(feeds, lease.forward if lease else None)
        found = {name: _detached(values[name], parameters) for name in names}
        loss = float(values[LOSS].reshape(())) if with_loss else None
        if not training:
            return Pass(found, loss, plan, {})
        residuals = {name: values[name] for name in plan.residuals}
        updates = {name: values[update_name(name)] for name in self.graph.updates}
        return Pass(found, loss, plan, feeds, residuals, updates, frozenset(parameters), lease)

    def backward(
        self,
        forward: Pass,
        output_gradients: Mapping[str, Array] | None = None,
        wrt: Sequence[str] = (),
        into: Mapping[str, Array] | None = None,
    ) -> Gradients:
        """Computes gradients through a pass made in training, which is left as it was.

        `output_gradients` gives the gradient with respect to outputs, by name; None or empty differentiates the loss.
        `wrt` names inputs. `into` names arrays in C order to leave gradients of parameters in. Raises EngineError when
        a name is unknown, a shape or type differs from the output's, an input is not floating-point, or a path has no
        gradient.
        """
        seeds = dict(output_gradients or {})
        for name in wrt:
            if name not in self._inputs:
                raise UnknownInput(f"the graph has no input {name!r}; {self._known_inputs()}", field="wrt")
            if not is_float(self._inputs[name].type.dtype):
                dtype = self._inputs[name].type.dtype.name
                raise NotDifferentiable(
                    f"input {name!r} is {dtype}; only floating-point inputs have gradients", field="wrt"
                )
        self._check_seeds(forward.plan, seeds)
        found = forward.plan.backward(tuple(sorted(seeds)), (*self.trainable, *wrt))
        frame = forward.lease.backward(found.program) if forward.lease else None
        arrays = found.run({**forward.feeds, **forward.residuals}, seeds, frame, into)
        inputs = {name: arrays[name] if name in arrays else np.zeros_like(forward.feeds[name]) for name in wrt}
        return Gradients({name: arrays[name] for name in self.trainable if name in arrays}, inputs)

    def trim(self) -> None:
        """Gives up the memory that is kept for the next call."""
        for pool in self._warm.values():
            pool.clear()
        self._warm.clear()
        self._workspace = Workspace()

    def _pool(self, plan: Plan) -> FramePool:
        pool = self._warm.get(plan) or FramePool(plan.program, self._workspace, self._passing)
        self._warm[plan] = pool
        self._warm.move_to_end(plan)
        if len(self._warm) > WARM_PLANS:
            self._warm.popitem(last=False)[1].clear()
        return pool

    def _check(self) -> None:
        builder = Builder(training=True, abstract=True)
        values = {item.name: builder.leaf(item.name, item.type) for item in self.graph.inputs}
        values.update((item.name, builder.leaf(item.name, item.type)) for item in self.graph.parameters)
        values.update((name, builder.constant(array)) for name, array in self.graph.constants.items())
        for node in self.graph.topological_nodes:
            replay(builder, node, values)
        check_updates(self.graph, {name: builder.types[value.name] for name, value in values.items()})
        if self.graph.loss is None:
            return
        loss = values[self.graph.loss].name
        if (type_ := builder.types[loss]) is not None:
            _check_loss(self.graph.loss, type_)
        if node_without := undifferentiable(builder, [loss], self.trainable):
            raise NotDifferentiable(
                f"{node_without.op.name} node {node_without.label!r} has no gradient, but lies between the loss and a "
                "trainable parameter; take it off that path, or freeze the parameters before it",
                field=f"graph.nodes[{node_without.label}]",
            )

    def _place(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None, training: bool) -> _Place:
        """Returns what is to be computed; raises EngineError for names, shapes and types that are wrong.

        That depends on names, shapes and types alone, so those of a call that was admitted are admitted again.
        """
        given = tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])
        key = (given, None if outputs is None else tuple(outputs), training)
        if (known := self._admitted.get(key)) is not None:
            return known
        names = tuple(sorted(self.graph.outputs) if outputs is None else dict.fromkeys(outputs))
        feeds = bind_inputs(self._inputs, inputs)
        with_loss = self._needs_loss(names, feeds.keys(), training)
        self._require(names, with_loss, feeds.keys(), self.graph.updates if training else {})
        shapes = tuple((name, feeds[name].shape) for name in sorted(feeds))
        if len(self._admitted) >= CACHED_PLANS:
            self._admitted.clear()
        return self._admitted.setdefault(key, (shapes, names, with_loss, training))

    def _needs_loss(self, names: Sequence[str], feeds: Set[str], training: bool) -> bool:
        if self.graph.loss is None:
            if LOSS in names:
                raise UnknownOutput("the graph has no loss", field="outputs")
            return False
        available = self._inputs.keys() & self.graph.dependencies([self.graph.loss]) <= feeds
        return training or available or LOSS in names

    def _require(self, names: Sequence[str], with_loss: bool, feeds: Set[str], updates: Mapping[str, str]) -> None:
        for name in names:
            if name != LOSS and name not in self.graph.outputs:
                known = ", ".join(sorted(self.graph.outputs)) or "none"
                raise UnknownOutput(f"the graph has no output {name!r}; its outputs are: {known}", field="outputs")
        targets = self.graph.targets([*names, *([LOSS] if with_loss else [])])
        targets.update((f"update of {name}", value) for name, value in updates.items())
        needed = self.graph.dependencies(targets.values())
        for name in self._inputs:
            if name in needed and name not in feeds:
                wanted = next(o for o, value in targets.items() if name in self.graph.dependencies([value]))
                raise MissingInput(f"input {name!r} is missing, and {wanted!r} depends on it; send it", field="inputs")

    def _plan(self, feeds: Mapping[str, Array], place: _Place) -> Plan:
        _, names, with_loss, training = place
        while True:
            special = self._specialised.get(place, _NOTHING)
            key = (place, tuple([(name, feeds[name].tobytes()) for name in sorted(special)]) if special else ())
            if (plan := self._plans.get(key)) is not None:
                self._plans.move_to_end(key)
                return plan
            known = {name: feeds[name] for name in special}
            outcome = compile_plan(self.graph, self.trainable, feeds, known, names, with_loss, training)
            if isinstance(outcome, Plan):
                self._plans[key] = outcome
                if len(self._plans) > CACHED_PLANS:
                    self._plans.popitem(last=False)
                return outcome
            if outcome <= special:
                raise GraphError("a shape depends on values that cannot be known before the graph runs")
            if len(self._specialised) >= CACHED_PLANS:
                self._specialised.clear()
            self._specialised[place] = special | outcome

    def _check_seeds(self, plan: Plan, seeds: Mapping[str, Array]) -> None:
        if not seeds and self.graph.loss is None:
            raise UnknownOutput("the graph has no loss; give the gradients of outputs", field="output_gradients")
        for name, seed in seeds.items():
            path = f"output_gradients[{name}]"
            if (name not in self.graph.outputs) if name != LOSS else self.graph.loss is None:
                known = ", ".join(sorted(self.graph.outputs)) or "none"
                raise UnknownOutput(f"the graph has no output {name!r}; its outputs are: {known}", field=path)
            type_ = plan.output_type(name)
            if type_ is None:
                raise MissingInput(f"output {name!r} depends on an input that the pass was not given", field=path)
            if not is_float(type_.dtype):
                raise NotDifferentiable(f"output {name!r} is {type_.dtype.name} and has no gradient", field=path)
            if seed.dtype != type_.dtype:
                raise DtypeMismatch(
                    f"the gradient of output {name!r} is {seed.dtype.name}; the output is {type_}", field=path
                )
            if seed.shape != type_.shape:
                raise ShapeMismatch(
                    f"the gradient of output {name!r} has shape {show(seed.shape)}; the output is {type_}", field=path
                )

    def _known_inputs(self) -> str:
        return f"its inputs are: {', '.join(self._inputs) or 'none'}"


def _check_loss(name: str, type_: TensorType) -> None:
    if not is_float(type_.dtype) or not may_equal(product(type_.shape), 1):
        raise GraphError(f"the loss {name!r} is {type_}; it must be one floating-point element", field="graph.loss")


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _detached(array: Array, parameters: Mapping[str, Array]) -> Array:
    """Returns the array, copied if it is a view of a parameter, which a later Step would change."""
    owner = _owner(array)
    return array.copy() if any(_owner(parameter) is owner for parameter in parameters.values()) else array
