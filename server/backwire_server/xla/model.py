"""Models whose programs run on the devices of JAX."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from backwire_server.engine.builder import RANDOM_KEY
from backwire_server.engine.cost import Admit, Cost
from backwire_server.engine.graph import LOSS, Array, Graph
from backwire_server.engine.model import Model, scaled
from backwire_server.engine.plan import Plan, seed_name
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.engine.precision import needs_scale
from backwire_server.engine.runner import Pool
from backwire_server.engine.stopping import Stop
from backwire_server.xla.optimizing import TracedOptimizer
from backwire_server.xla.running import DevicePool
from backwire_server.xla.sharding import Sharding
from backwire_server.xla.stepping import CompiledStep, DeviceState, Stepped

CACHED_STEPS = 4  # of each plan: optimizers of sessions that share it


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

    def train_step(
        self,
        inputs: Mapping[str, Array],
        state: DeviceState,
        spare: DeviceState,
        frozen: Mapping[str, Any],
        optimizer: TracedOptimizer,
        figures: Array,
        *,
        outputs: Sequence[str],
        key: tuple[int, int],
        stop: Stop,
        admit: Admit,
        scale: float = 1.0,
    ) -> Stepped | None:
        """Returns what a training step with the loss leads to; see `CompiledStep.run`, and Model for the rest."""
        place = self._shared.admit(inputs, outputs, training=True)
        feeds = {**inputs, **state.parameters, **frozen, RANDOM_KEY: np.array(key, np.uint64)}
        plan = self._plan(feeds, place, stop)
        if needs_scale(self.graph.precision):
            feeds[seed_name(LOSS)] = scaled(plan, {}, scale)[LOSS]
        admit(plan.cost)
        step = self._compiled_step(plan, optimizer, place[1])
        admit(Cost(0, step.backward_bytes))
        if stop.wanted:
            stop.heed()
        return step.run(state, spare, feeds, figures)

    def _compiled_step(self, plan: Plan, optimizer: TracedOptimizer, outputs: Sequence[str]) -> CompiledStep:
        steps = plan.program.compiled
        key = (optimizer.key, self.sharding and self.sharding.count)
        if (found := steps.get(key)) is None:
            if len(steps) > CACHED_STEPS:
                steps.clear()
            found = steps[key] = CompiledStep(plan, optimizer, outputs, tuple(self.graph.updates), self.sharding)
        return cast(CompiledStep, found)

    def _new_pool(self, plan: Plan) -> Pool:
        return DevicePool(plan.program, self.sharding)
