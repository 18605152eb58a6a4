"""Models whose programs run on the devices of JAX."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

from backwire_server.engine.backward_plan import seed_name
from backwire_server.engine.builder import RANDOM_KEY
from backwire_server.engine.cost import Admit
from backwire_server.engine.graph import LOSS, Array, Graph
from backwire_server.engine.model import Model
from backwire_server.engine.plan import Plan
from backwire_server.engine.plan_cache import Place, PlanCache
from backwire_server.engine.precision import needs_scale
from backwire_server.engine.runner import Pool
from backwire_server.engine.seeds import scaled
from backwire_server.engine.stopping import Stop
from backwire_server.xla.cohort import Cohort, cohort_of
from backwire_server.xla.group_step import GroupStep
from backwire_server.xla.optimizing import TracedOptimizer
from backwire_server.xla.running import DevicePool
from backwire_server.xla.sharding import Sharding, sent
from backwire_server.xla.state import DeviceState
from backwire_server.xla.stepping import CompiledStep, Running

_NOTHING: Mapping[str, Any] = {}
CACHED_STEPS = 4  # of each plan: optimizers of sessions that share it

S = TypeVar("S", bound=CompiledStep)

_MUTEX = threading.Lock()


class XlaModel(Model):
    """A Model that computes the same within rounding, by JAX.

    A computation that has begun is not stopped, and how long XLA compiles is not limited. What `stop` and
    `compile_seconds` end is the rest.

    Attributes:
        sharding: How values lie on several devices; None where there is one.
    """

    by_node = False

    def __init__(self, graph: Graph | PlanCache, *, devices: int = 1, **given: Any) -> None:
        """As of Model; raises TooFewDevices where JAX does not find as many."""
        super().__init__(graph, **given)
        self.sharding = Sharding.over(self.graph, devices)
        self._last: tuple[Place, TracedOptimizer, Plan, CompiledStep] | None = None

    def train_step(
        self,
        inputs: Mapping[str, Array],
        state: DeviceState,
        spare: DeviceState,
        frozen: Mapping[str, Any],
        optimizer: TracedOptimizer,
        figures: Array,
        *,
        staged: Mapping[str, Any] = _NOTHING,
        outputs: Sequence[str],
        key: tuple[int, int],
        stop: Stop,
        admit: Admit,
        scale: float = 1.0,
    ) -> Running:
        """Has a training step with the loss computed; see `CompiledStep.begin`, and Model for the rest.

        `staged` are those of the inputs that `stage` sent ahead.
        """
        place = self._shared.admit(inputs, outputs, training=True)
        feeds = {**inputs, **frozen, RANDOM_KEY: np.array(key, np.uint64)}
        last = self._last
        if last is not None and last[0] == place and last[1] is optimizer:
            plan, step = last[2:]
        else:
            plan = self._plan({**feeds, **optimizer.types}, place, stop, partial(_elements_of, feeds, optimizer, state))
            step = self._compiled_step(plan, optimizer, place[1])
            self._last = None if place in self._specialised else (place, optimizer, plan, step)
        if needs_scale(self.graph.precision):
            feeds[seed_name(LOSS)] = scaled(plan, {}, scale)[LOSS]
        admit(step.cost)
        if stop.wanted:
            stop.heed()
        feeds.update(staged)
        return step.begin(state, spare, feeds, figures)

    def stage(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Any]:
        """Returns the inputs of a training step to come, sent ahead; may be called while another step computes.

        Raises EngineError for names, shapes and types that are wrong.
        """
        self._shared.admit(inputs, outputs, training=True)
        return sent(inputs, self.sharding)

    def group_step(
        self,
        inputs: Mapping[str, Array],
        optimizer: TracedOptimizer,
        *,
        outputs: Sequence[str],
        stop: Stop,
        admit: Admit,
    ) -> GroupStep | None:
        """Returns the training step with the loss that models with the same graph take together; see `train_step`.

        None where the plan depends on elements, and so is this model's alone.
        """
        place = self._shared.admit(inputs, outputs, training=True)
        feeds = {**inputs, **optimizer.types, RANDOM_KEY: np.zeros(2, np.uint64)}
        plan = self._plan_knowing(_NOTHING, feeds, place, stop)
        if not isinstance(plan, Plan):
            return None
        key = optimizer.key, GroupStep
        found = _kept(plan, key, lambda: GroupStep(plan, optimizer, place[1]))
        admit(found.cost)
        return found

    def cohort(self, optimizer: TracedOptimizer) -> Cohort:
        """Returns where those with the same graph and optimizer have their states."""
        return cohort_of(self._shared, optimizer)

    def _compiled_step(self, plan: Plan, optimizer: TracedOptimizer, outputs: Sequence[str]) -> CompiledStep:
        updates = tuple(self.graph.updates)
        key = (optimizer.key, self.sharding and self.sharding.count)
        return _kept(plan, key, lambda: CompiledStep(plan, optimizer, outputs, updates, self.sharding))

    def _new_pool(self, plan: Plan) -> Pool:
        return DevicePool(plan.program, self.sharding)


def _elements_of(feeds: Mapping[str, Any], optimizer: TracedOptimizer, state: DeviceState, name: str) -> Array:
    """Returns the elements of a feed of a training step, or of a parameter in the state."""
    given = feeds if name in feeds else optimizer.tensors([np.asarray(each) for each in state.parameters])
    return np.asarray(given[name])


def _kept(plan: Plan, key: Hashable, make: Callable[[], S]) -> S:
    """Returns the step that is kept with a plan, made if there is none."""
    steps = plan.program.compiled
    with _MUTEX:
        if (found := steps.get(key)) is None:
            if len(steps) > CACHED_STEPS:
                steps.clear()
            found = steps[key] = make()
        return cast(S, found)
