"""Training steps compiled whole: forward, backward and optimizer in one function, which reuses memory of its own."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from backwire_server.engine.backward_plan import seed_name
from backwire_server.engine.cost import Cost
from backwire_server.engine.graph import LOSS, Array
from backwire_server.engine.plan import Plan, update_name
from backwire_server.engine.program import Program
from backwire_server.xla.compiling import jitted
from backwire_server.xla.lifetimes import unbound
from backwire_server.xla.optimizing import TracedOptimizer, square_of
from backwire_server.xla.registry import numerics
from backwire_server.xla.sharding import Sharding
from backwire_server.xla.state import DeviceState
from backwire_server.xla.tracing import Check, Traced, arguments, heed, trace

SMALLEST_SQUARE = 1e-30
"""Below it a sum of squares may have lost small ones."""


class Stepped(NamedTuple):
    """What a step computed: the norm of the gradients, and loss, outputs and updates of before.

    The culprit is the first parameter whose gradient has elements that are not finite, None where all are.
    """

    norm: float
    loss: float
    outputs: dict[str, Array]
    updates: dict[str, Array]
    culprit: str | None


class Running:
    """A step that the device computes meanwhile.

    Attributes:
        state: The state after it, which need not be there yet.
    """

    __slots__ = ("_given", "_outputs", "_step", "_told", "_updates", "state")

    def __init__(self, step: "CompiledStep", given: Sequence[Any], found: Sequence[Any]) -> None:
        self.state, self._told, self._outputs, self._updates = found
        self._step, self._given = step, given

    def result(self) -> Stepped | None:
        """Waits for what the step computes, and returns it.

        None when the norm of the gradients is not sure to be right, so that the step must be done in another way.
        Raises InvalidValue naming a node.
        """
        step, (loss, square, refused) = self._step, np.asarray(self._told).tolist()
        culprit = step.judged(self._given) if refused or not square < np.inf else None
        if culprit is None and not SMALLEST_SQUARE < square < np.inf:
            return None
        outputs = dict(zip(step.outputs, map(np.asarray, self._outputs), strict=True))
        updates = dict(zip(step.updates, map(np.asarray, self._updates), strict=True))
        return Stepped(square**0.5, loss, outputs, updates, culprit)


class CompiledStep:
    """The training step of a plan with an optimizer, as one function of JAX.

    Attributes:
        feeds: The names of what it is given besides the state.
        outputs: The names of the outputs that it returns.
        updates: The names of the frozen parameters whose next values it returns.
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
        self._optimizer = optimizer
        self._forward, self._forward_names = plan.program.apart(), plan.names
        self._backward, self._backward_names = backward.program.apart(), backward.names
        self.outputs, self.updates = outputs, updates
        programs = (plan.program, backward.program)
        known = {**plan.program.known, **backward.program.known}
        inner = {*plan.residuals, *plan.usual[1]}
        names = dict.fromkeys(name for each in programs for name in arguments(each) if name not in inner)
        self.feeds = tuple(name for name in names if name not in known)
        self._large = tuple(name for name in names if name in known)
        self._constants = tuple(known[name] for name in self._large)
        self.cost = Cost(plan.cost.flops, max(plan.cost.nbytes, backward.program.schedule.peak_bytes))
        self._checks: Sequence[Check] = ()
        lying = {} if sharding is None else self._lying(sharding)
        self._function = jitted(unbound(self._stepped), donate_argnums=1, keep_unused=True, **lying)
        self._judge = jitted(unbound(self._judgement), keep_unused=True)

    def begin(self, state: DeviceState, spare: DeviceState, feeds: Mapping[str, Any], figures: Array) -> Running:
        """Has the step computed; `state` is left as it is, and the memory of `spare` is used up."""
        given = [feeds[name] for name in self.feeds], self._constants, figures
        with jax.enable_x64(True):  # the rest of `numerics` counts while it is traced alone
            found = self._function(state, spare, *given)
        return Running(self, (state, *given), found)

    def judged(self, given: Sequence[Any]) -> str | None:
        """Returns the first parameter whose gradient is not finite, None where all are, of what a step was given.

        That is a program of its own, since few steps need it. Raises InvalidValue naming a node.
        """
        with jax.enable_x64(True):
            wrong, elements, finite = self._judge(*given)
        heed(self._checks, wrong, elements)
        return next((name for name in self._optimizer.names if not finite.get(name, True)), None)

    def _lying(self, sharding: Sharding) -> dict[str, Any]:
        """Returns where arguments and results lie, as `jax.jit` wants it: each device has all but batches."""
        types, each = {**self._backward.types, **self._forward.types}, sharding.everywhere
        feeds = sharding.of(self.feeds, types, each)
        return {"in_shardings": (each, each, feeds, each, each), "out_shardings": (each, each, None, each)}

    def _stepped(self, state: DeviceState, _: DeviceState, *given: Any) -> Any:
        with numerics():
            return self._traced(state, *given)[:4]

    def _judgement(self, *given: Any) -> Any:
        with numerics():
            *_, wrong, elements, gradients = self._traced(*given)
            return wrong, elements, {name: jnp.isfinite(each).all() for name, each in gradients.items()}

    def _traced(self, state: DeviceState, given: Sequence[Any], constants: Sequence[Any], figures: Any) -> Any:
        optimizer = self._optimizer
        feeds = {**dict(zip(self.feeds, given, strict=True)), **optimizer.tensors(state.parameters)}
        feeds |= dict(zip(self._large, constants, strict=True))
        forward = trace(self._forward, feeds)
        back = trace(self._backward, forward.values | feeds)
        self._checks = (*forward.checks, *back.checks)
        gradients = _unscaled(_values(self._backward_names, self._backward, back), feeds.get(seed_name(LOSS)))
        slopes = optimizer.joined(gradients)
        after = DeviceState(*optimizer.apply(state.parameters, slopes, state.memory, figures))
        values = _values(self._forward_names, self._forward, forward)
        outputs = [values[name] for name in self.outputs]
        updates = [values[update_name(name)] for name in self.updates]
        wrong = jnp.concatenate([forward.wrong, back.wrong])
        told = jnp.stack([values[LOSS].reshape(()), square_of(slopes), wrong.any()], dtype=jnp.float64)
        return after, told, outputs, updates, wrong, (*forward.elements, *back.elements), gradients


def _values(names: Sequence[str], program: Program, traced: Traced) -> dict[str, Any]:
    return {name: traced.values[value] for name, value in zip(names, program.targets, strict=True)}


def _unscaled(gradients: dict[str, Any], seed: Any) -> dict[str, Any]:
    """Returns the gradients of the loss, from those of a multiple; the seed is how large, None where it is the loss."""
    if seed is None:
        return gradients
    return {name: each / seed.reshape(()).astype(each.dtype) for name, each in gradients.items()}
