"""Training steps compiled whole: forward, backward and optimizer in one function, which reuses memory of its own."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from backwire_server.engine.cost import Cost
from backwire_server.engine.graph import LOSS, Array
from backwire_server.engine.plan import Plan, seed_name, update_name
from backwire_server.engine.program import Program
from backwire_server.xla.optimizing import Arrays, TracedOptimizer, square_of
from backwire_server.xla.registry import numerics
from backwire_server.xla.sharding import Sharding
from backwire_server.xla.tracing import Check, Traced, arguments, heed, trace

SMALLEST_SQUARE = 1e-30
"""Below it a sum of squares may have lost small ones."""


class DeviceState(NamedTuple):
    """What a step changes, on the device: trainable parameters, and what the optimizer remembers.

    They are in the order of the optimizer, see `TracedOptimizer`: JAX takes a mapping apart anew in each call.
    """

    parameters: Arrays
    memory: Arrays


class Stepped(NamedTuple):
    """What a step computed: the state after it, the norm of the gradients, and loss, outputs and updates of before."""

    state: DeviceState
    norm: float
    loss: float
    outputs: dict[str, Array]
    updates: dict[str, Array]


class CompiledStep:
    """The training step of a plan with an optimizer, as one function of JAX.

    Attributes:
        feeds: The names of what it is given besides the state.
        cost: What a step takes, about.
    """

    def __init__(
        self,
        plan: Plan,
        optimizer: TracedOptimizer,
        outputs: Sequence[str],
        updates: Collection[str],
        sharding: Sharding | None = None,
    ) -> None:
        """Compiles nothing yet: that is done when it runs for the first time."""
        assert plan.usual is not None
        backward = plan.backward(*plan.usual)
        self._plan, self._backward, self._optimizer = plan, backward, optimizer
        self._outputs, self._updates = outputs, updates
        programs = (plan.program, backward.program)
        known = {**plan.program.known, **backward.program.known}
        inner = {*plan.residuals, *plan.usual[1]}
        names = dict.fromkeys(name for each in programs for name in arguments(each) if name not in inner)
        self.feeds = tuple(name for name in names if name not in known)
        self._constants = [(name, known[name]) for name in names if name in known]
        self.cost = Cost(plan.cost.flops, max(plan.cost.nbytes, backward.program.schedule.peak_bytes))
        self._checks: Sequence[Check] = ()
        lying = {} if sharding is None else self._lying(sharding)
        self._function = jax.jit(self._stepped, donate_argnums=1, keep_unused=True, **lying)
        self._faults = jax.jit(self._judged, keep_unused=True)

    def run(self, state: DeviceState, spare: DeviceState, feeds: Mapping[str, Any], figures: Array) -> Stepped | None:
        """Returns what the step computed; `state` is left as it is, and the memory of `spare` is used up.

        None when the norm of the gradients is not sure to be right, so that the step must be done in another way.
        Raises InvalidValue naming a node.
        """
        given = (state, [feeds[name] for name in self.feeds], [array for _, array in self._constants], figures)
        with numerics():
            after, told, outputs, updates = self._function(given[0], spare, *given[1:])
        loss, square, refused = np.asarray(told).tolist()
        if refused:
            with numerics():
                heed(self._checks, *self._faults(*given))
        if not SMALLEST_SQUARE < square < np.inf:
            return None
        found = dict(zip(self._outputs, map(np.asarray, outputs), strict=True))
        return Stepped(after, square**0.5, loss, found, dict(zip(self._updates, map(np.asarray, updates), strict=True)))

    def _lying(self, sharding: Sharding) -> dict[str, Any]:
        """Returns where arguments and results lie, as `jax.jit` wants it: each device has all but batches."""
        types, each = {**self._backward.program.types, **self._plan.program.types}, sharding.everywhere
        feeds = sharding.of(self.feeds, types, each)
        return {"in_shardings": (each, each, feeds, each, each), "out_shardings": (each, each, None, each)}

    def _stepped(self, state: DeviceState, _: DeviceState, *given: Any) -> Any:
        return self._traced(state, *given)[:4]

    def _judged(self, *given: Any) -> Any:
        return self._traced(*given)[4:]

    def _traced(self, state: DeviceState, given: Sequence[Any], constants: Sequence[Any], figures: Any) -> Any:
        parameters = dict(zip(self._optimizer.names, state.parameters, strict=True))
        feeds = {**dict(zip(self.feeds, given, strict=True)), **parameters}
        feeds |= {name: value for (name, _), value in zip(self._constants, constants, strict=True)}
        forward = trace(self._plan.program, feeds)
        back = trace(self._backward.program, forward.values | feeds)
        self._checks = (*forward.checks, *back.checks)
        gradients = _unscaled(_values(self._backward.names, self._backward.program, back), feeds.get(seed_name(LOSS)))
        after = DeviceState(*self._optimizer.apply(state.parameters, gradients, state.memory, figures))
        values = _values(self._plan.names, self._plan.program, forward)
        wrong = jnp.concatenate([forward.wrong, back.wrong])
        told = jnp.stack([values[LOSS].reshape(()), square_of(gradients), wrong.any()], dtype=jnp.float64)
        outputs = [values[name] for name in self._outputs]
        updates = [values[update_name(name)] for name in self._updates]
        return after, told, outputs, updates, wrong, (*forward.elements, *back.elements)


def _values(names: Sequence[str], program: Program, traced: Traced) -> dict[str, Any]:
    return {name: traced.values[value] for name, value in zip(names, program.targets, strict=True)}


def _unscaled(gradients: dict[str, Any], seed: Any) -> dict[str, Any]:
    """Returns the gradients of the loss, from those of a multiple; the seed is how large, None where it is the loss."""
    if seed is None:
        return gradients
    return {name: each / seed.reshape(()).astype(each.dtype) for name, each in gradients.items()}


def uploaded(arrays: Arrays, sharding: Sharding | None) -> tuple[Any, ...]:
    """Returns copies on the device, or on each."""
    copied = _COPIED if sharding is None else jax.jit(_copy, out_shardings=sharding.everywhere)
    with numerics():
        return tuple(jax.block_until_ready(copied(list(arrays))))


def room_for(state: DeviceState) -> DeviceState:
    """Returns memory like that of a state, with anything in it."""
    with numerics():
        return DeviceState(*(tuple(map(jnp.zeros_like, each)) for each in state))


def _copy(arrays: Arrays) -> Arrays:
    return [jnp.copy(each) for each in arrays]


_COPIED = jax.jit(_copy)
