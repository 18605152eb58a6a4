"""A graph made ready to run: checks what it is given, compiles per shape, runs forward and backward passes."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backwire_server.engine.builder import RANDOM_KEY
from backwire_server.engine.cost import Admit, admit_all
from backwire_server.engine.errors import GraphError
from backwire_server.engine.frames import FramePool
from backwire_server.engine.graph import LOSS, Array, Graph
from backwire_server.engine.memory import Workspace
from backwire_server.engine.plan import Plan, update_name
from backwire_server.engine.plan_cache import CACHED_PLANS, Place, PlanCache
from backwire_server.engine.precision import needs_scale
from backwire_server.engine.runner import Lease, Pool
from backwire_server.engine.seeds import check_seeds, check_wrt, scaled
from backwire_server.engine.stopping import NEVER, Allowance, Stop

WARM_PLANS = 4  # of these the memory is kept: training and evaluation, and the last batch of each, which is smaller
SPECIAL_BYTES = 16 << 20  # of elements that plans are specialised on; past them the oldest go, down to WARM_PLANS

_Elements = tuple[tuple[str, bytes], ...]
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
    an operator without a gradient. One that is made from a PlanCache shares it with others, and is the same otherwise.
    Calls on one Model must not overlap. Between calls it keeps memory to work in, which `trim` gives up. Without
    `planned` it calls kernel after kernel instead, each making new arrays: slow, and simple.

    Attributes:
        by_node: Whether its programs run node by node, so that each takes a time of its own.
    """

    by_node = True

    def __init__(self, graph: Graph | PlanCache, *, planned: bool = True, compile_seconds: float | None = None) -> None:
        """Anything that is compiled may take so long, None for no limit; TooCostly is raised after that."""
        self.compile_seconds = compile_seconds
        self._shared = graph if isinstance(graph, PlanCache) else PlanCache(graph)
        self.graph = self._shared.graph
        self.trainable = self._shared.trainable
        self._inputs = self._shared.inputs
        self._plans: OrderedDict[tuple[Place, _Elements], Plan] = OrderedDict()
        self._specialised: dict[Place, frozenset[str]] = {}
        self._planned = planned
        self._workspace = Workspace()
        self._warm: OrderedDict[Plan, Pool] = OrderedDict()

    def forward(
        self,
        inputs: Mapping[str, Array],
        parameters: Mapping[str, Array],
        *,
        training: bool,
        outputs: Sequence[str] | None = None,
        key: tuple[int, int] = (0, 0),
        stop: Stop = NEVER,
        admit: Admit = admit_all,
    ) -> Pass:
        """Computes the named outputs (all when None) and the loss; in training also what `backward` needs.

        `parameters` holds every parameter by name. `key` is what random numbers are drawn from: a seed and the number
        of the pass. Raises EngineError when names, shapes or types are wrong, or an element is not acceptable, and
        Stopped between two kernels, or two nodes that are compiled, when that is wanted. `admit` is told what the pass
        takes, and may raise, before memory is taken for it.
        """
        place = self._shared.admit(inputs, outputs, training)
        _, names, with_loss, _ = place
        feeds = {**inputs, **parameters, RANDOM_KEY: np.array(key, np.uint64)}
        plan = self._plan(feeds, place, stop)
        if self._planned:
            admit(plan.cost)
        lease = self._pool(plan).lease() if self._planned else None
        values = plan.run(feeds, lease.forward if lease else None, stop)
        found = {name: _detached(values[name], parameters) for name in names}
        loss = float(values[LOSS].reshape(())) if with_loss else None
        if not training:
            return Pass(found, loss, plan, {})
        residuals = {name: values[name] for name in plan.residuals}
        updates = {name: values[update_name(name)] for name in self.graph.updates}
        return Pass(found, loss, plan, feeds, residuals, updates, frozenset(parameters), lease)

    def compiled(
        self, inputs: Mapping[str, Array], parameters: Mapping[str, Array], key: tuple[int, int], stop: Stop = NEVER
    ) -> tuple[Plan, dict[str, Array]]:
        """Returns the plan of a pass in training with all outputs, and what it runs on; raises what `forward` does."""
        feeds = {**inputs, **parameters, RANDOM_KEY: np.array(key, np.uint64)}
        return self._plan(feeds, self._shared.admit(inputs, None, True), stop), feeds

    def backward(
        self,
        forward: Pass,
        output_gradients: Mapping[str, Array] | None = None,
        wrt: Sequence[str] = (),
        into: Mapping[str, Array] | None = None,
        stop: Stop = NEVER,
        admit: Admit = admit_all,
        scale: float = 1.0,
    ) -> Gradients:
        """Computes gradients through a pass made in training, which is left as it was.

        `output_gradients` gives the gradient with respect to outputs, by name; None or empty differentiates the loss.
        `wrt` names inputs. `into` names arrays in C order to leave gradients of parameters in. Raises EngineError when
        a name is unknown, a shape or type differs from the output's, an input is not floating-point, or a path has no
        gradient. Raises Stopped as `forward` does; the pass can be differentiated again, and what is in `into` has no
        meaning then. `admit` is told what is taken beyond what `forward` told of. `scale` is a power of two that all is
        multiplied by while gradients are computed, and divided by at the end.
        """
        seeds = dict(output_gradients or {})
        check_wrt(self._inputs, wrt, forward.feeds)
        check_seeds(self.graph, seeds, forward.plan.output_type)
        if needs_scale(self.graph.precision):
            seeds = scaled(forward.plan, seeds, scale)
        way = tuple(sorted(seeds)), (*self.trainable, *dict.fromkeys(wrt))
        found = forward.plan.backward(*way, self.compiling(stop))
        if forward.lease:
            admit(found.cost)
        frame = forward.lease.backward(found.program) if forward.lease else None
        arrays = found.run({**forward.feeds, **forward.residuals}, seeds, frame, into, stop)
        if scale != 1:
            arrays = {name: _divided(array, scale, (into or {}).get(name)) for name, array in arrays.items()}
        inputs = {name: arrays[name] if name in arrays else np.zeros_like(forward.feeds[name]) for name in wrt}
        return Gradients({name: arrays[name] for name in self.trainable if name in arrays}, inputs)

    def compiling(self, stop: Stop) -> Stop:
        """Returns a stop that ends a compilation of more than `compile_seconds`, and what the given one stops."""
        return stop if self.compile_seconds is None else Allowance(self.compile_seconds, stop)

    def trim(self) -> None:
        """Gives up the memory that is kept for the next call."""
        for pool in self._warm.values():
            pool.clear()
        self._warm.clear()
        self._workspace = Workspace()

    def _new_pool(self, plan: Plan) -> Pool:
        return FramePool(plan.program, self._workspace, self._shared.passing)

    def _pool(self, plan: Plan) -> Pool:
        pool = self._warm.get(plan) or self._new_pool(plan)
        self._warm[plan] = pool
        self._warm.move_to_end(plan)
        if len(self._warm) > WARM_PLANS:
            self._warm.popitem(last=False)[1].clear()
        return pool

    def _plan(
        self, feeds: Mapping[str, Array], place: Place, stop: Stop, look: Callable[[str], Array] | None = None
    ) -> Plan:
        """Returns the plan for a place; `look` gives the elements of a feed where a shape depends on them."""
        look = look or feeds.__getitem__
        while True:
            special = self._specialised.get(place, _NOTHING)
            found = self._plan_knowing({name: look(name) for name in sorted(special)}, feeds, place, stop)
            if isinstance(found, Plan):
                return found
            if found <= special:
                raise GraphError("a shape depends on values that cannot be known before the graph runs")
            if len(self._specialised) >= CACHED_PLANS:
                self._specialised.clear()
            self._specialised[place] = special | found

    def _plan_knowing(
        self, known: Mapping[str, Array], feeds: Mapping[str, Array], place: Place, stop: Stop
    ) -> Plan | frozenset[str]:
        """Returns the plan for a place and elements, or the names of further feeds whose elements it depends on."""
        key = (place, tuple([(name, array.tobytes()) for name, array in known.items()]))
        if (plan := self._plans.get(key)) is not None:
            self._plans.move_to_end(key)
            return plan
        own = {name: array.copy() for name, array in known.items()}
        found = self._shared.plan(place, feeds, own, self.compiling(stop))
        if isinstance(found, Plan):
            self._plans[key] = found
            self._bound()
        return found

    def _bound(self) -> None:
        """Drops the plans that were not used for the longest time, when there are too many or they hold too much."""
        nbytes = sum(len(data) for _, elements in self._plans for _, data in elements)
        while len(self._plans) > (CACHED_PLANS if nbytes <= SPECIAL_BYTES else WARM_PLANS):
            (_, elements), _ = self._plans.popitem(last=False)
            nbytes -= sum(len(data) for _, data in elements)


def _divided(array: Array, scale: float, out: Array | None) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.multiply(array, array.dtype.type(1 / scale), out=out))


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _detached(array: Array, parameters: Mapping[str, Array]) -> Array:
    """Returns the array, copied if it is a view of a parameter, which a later Step would change."""
    owner = _owner(array)
    return array.copy() if any(_owner(parameter) is owner for parameter in parameters.values()) else array
