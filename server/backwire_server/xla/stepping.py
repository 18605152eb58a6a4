"""Training steps compiled whole: forward, backward and optimizer in one function, which reuses memory of its own."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from backwire_server.engine.graph import LOSS, Array
from backwire_server.engine.plan import Plan, seed_name, update_name
from backwire_server.engine.program import Program
from backwire_server.xla.optimizing import Memory, TracedOptimizer, square_of
from backwire_server.xla.registry import numerics
from backwire_server.xla.sharding import Sharding
from backwire_server.xla.tracing import Check, Traced, arguments, heed, trace

SMALLEST_SQUARE = 1e-30
"""Below it a sum of squares may have lost small ones."""


class DeviceState(NamedTuple):
    """What a step changes, on the device: trainable parameters by name, and what the optimizer remembers of each."""

    parameters: Mapping[str, Any]
    memory: Memory


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
        backward_bytes: About the memory that the backward part computes in.
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
        self.backward_bytes = backward.program.schedule.peak_bytes
        self._checks: Sequence[Check] = ()
        lying = {} if sharding is None else self._lying(sharding)
        self._function = jax.jit(self._traced, donate_argnums=1, keep_unused=True, **lying)

    def run(self, state: DeviceState, spare: DeviceState, feeds: Mapping[str, Any], figures: Array) -> Stepped | None:
        """Returns what the step computed; `state` is left as it is, and the memory of `spare` is used up.

        None when the norm of the gradients is not sure to be right, so that the step must be done in another way.
        Raises InvalidValue naming a node.
        """
        given = [feeds[name] for name in self.feeds]
        with numerics():
            after, told, outputs, updates, wrong, elements = self._function(
                state, spare, given, [array for _, array in self._constants], figures
            )
        loss, square, refused = np.asarray(told).tolist()
        if refused:
            heed(self._checks, wrong, elements)
        if not SMALLEST_SQUARE < square < np.inf:
            return None
        found = {name: np.asarray(array) for name, array in outputs.items()}
        return Stepped(after, square**0.5, loss, found, {name: np.asarray(array) for name, array in updates.items()})

    def _lying(self, sharding: Sharding) -> dict[str, Any]:
        """Returns where arguments and results lie, as `jax.jit` wants it: each device has all but batches."""
        types, each = {**self._backward.program.types, **self._plan.program.types}, sharding.everywhere
        feeds = sharding.of(self.feeds, types, each)
        return {"in_shardings": (each, each, feeds, each, each), "out_shardings": (each, each, None, each, each, each)}

    def _traced(
        self, state: DeviceState, _: DeviceState, given: Sequence[Any], constants: Sequence[Any], figures: Any
    ) -> Any:
        feeds = {**dict(zip(self.feeds, given, strict=True)), **state.parameters}
        feeds |= {name: value for (name, _), value in zip(self._constants, constants, strict=True)}
        forward = trace(self._plan.program, feeds)
        back = trace(self._backward.program, forward.values | feeds)
        self._checks = (*forward.checks, *back.checks)
        gradients = _unscaled(_values(self._backward.names, self._backward.program, back), feeds.get(seed_name(LOSS)))
        after = DeviceState(*self._optimizer.apply(state.parameters, gradients, state.memory, figures))
        values = _values(self._plan.names, self._plan.program, forward)
        wrong = jnp.concatenate([forward.wrong, back.wrong])
        told = jnp.stack([values[LOSS].reshape(()), square_of(gradients), wrong.any()], dtype=jnp.float64)
        outputs = {name: values[name] for name in self._outputs}
        updates = {name: values[update_name(name)] for name in self._updates}
        return after, told, outputs, updates, wrong, (*forward.elements, *back.elements)


def _values(names: Sequence[str], program: Program, traced: Traced) -> dict[str, Any]:
    return {name: traced.values[value] for name, value in zip(names, program.targets, strict=True)}


def _unscaled(gradients: dict[str, Any], seed: Any) -> dict[str, Any]:
    """Returns the gradients of the loss, from those of a multiple; the seed is how large, None where it is the loss."""
    if seed is None:
        return gradients
    return {name: each / seed.reshape(()).astype(each.dtype) for name, each in gradients.items()}


def uploaded(
    parameters: Mapping[str, Array], memory: Mapping[str, Mapping[str, Array]], sharding: Sharding | None
) -> DeviceState:
    """Returns copies on the device, or on each."""
    copied = _COPIED if sharding is None else jax.jit(_copy, out_shardings=sharding.everywhere)
    with numerics():
        found = copied((dict(parameters), {name: dict(each) for name, each in memory.items()}))
        return DeviceState(*jax.block_until_ready(found))


def room_for(state: DeviceState) -> DeviceState:
    """Returns memory like that of a state, with anything in it."""
    with numerics():
        return DeviceState(*jax.tree.map(jnp.zeros_like, (state.parameters, state.memory)))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


_COPIED = jax.jit(_copy)
