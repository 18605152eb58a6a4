"""Training steps of several models of one kind as one computation."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from backwire_server.engine.graph import Array
from backwire_server.engine.plan import Plan
from backwire_server.xla.cohort import Cohort, Slot
from backwire_server.xla.compiling import jitted
from backwire_server.xla.lifetimes import unbound
from backwire_server.xla.optimizing import TracedOptimizer
from backwire_server.xla.registry import numerics
from backwire_server.xla.state import DeviceState
from backwire_server.xla.stepping import SMALLEST_SQUARE, CompiledStep
from backwire_server.xla.tracing import Check, heed


class Answer(NamedTuple):
    """What the step of one model computed besides its state."""

    norm: float
    loss: float
    outputs: dict[str, Array]


class Member(NamedTuple):
    """What a step of one model needs: where its state is, inputs by name, and the figures of its optimizer."""

    slot: Slot
    feeds: Mapping[str, Array]
    figures: Array


class Group:
    """The steps of several models, computed; the states are as before until `keep`."""

    def __init__(
        self, cohort: Cohort, members: Sequence[Member], checks: Sequence[Check], names: Sequence[str], found: Any
    ) -> None:
        """Waits until they are computed; the outputs have these names."""
        self._cohort, self._members, self._checks = cohort, members, checks
        self._after, told, outputs, wrong, elements = found
        self._told = np.asarray(told)
        self._outputs = dict(zip(names, map(np.asarray, outputs), strict=True))
        self._wrong = np.asarray(wrong)
        self._elements = elements

    def answer(self, place: int) -> Answer | None:
        """Returns what one of them computed; None when its step must be done in another way, see `Running.result`.

        Raises InvalidValue naming a node.
        """
        loss, square, refused = self._told[place].tolist()
        if refused:
            heed(self._checks, self._wrong[place], [each[place] for each in self._elements])
        if not SMALLEST_SQUARE < square < np.inf:
            return None
        return Answer(square**0.5, loss, {name: array[place, ...] for name, array in self._outputs.items()})

    def keep(self, places: Collection[int]) -> None:
        """Makes the states of those at these places what they computed; the others stay as they are."""
        if places:
            slots = [member.slot if at in places else None for at, member in enumerate(self._members)]
            self._cohort.update(slots, self._after)


class GroupStep(CompiledStep):
    """The training step of a plan with an optimizer, for any number of models; each number is compiled by itself.

    What one model gets depends on the number of models in the group, within rounding, but not on the others.
    """

    def __init__(self, plan: Plan, optimizer: TracedOptimizer, outputs: Sequence[str]) -> None:
        """As of CompiledStep, for a plan whose graph has no frozen parameters."""
        super().__init__(plan, optimizer, outputs, ())
        self._together = jitted(unbound(self._stacked), donate_argnums=0, keep_unused=True)

    def compute(self, cohort: Cohort, members: Sequence[Member]) -> Group:
        """Computes the steps of members of a cohort, each of which is there once."""
        given = [np.stack([member.feeds[name] for member in members]) for name in self.feeds]
        figures = np.stack([member.figures for member in members])
        states = cohort.states([member.slot for member in members])
        with numerics():
            found = self._together(states, given, self._constants, figures)
        return Group(cohort, members, self._checks, self.outputs, found)

    def _stacked(self, states: DeviceState, given: Sequence[Any], constants: Sequence[Any], figures: Any) -> Any:
        def step(state: DeviceState, given: Sequence[Any], figures: Any) -> Any:
            after, told, outputs, _, wrong, elements, _ = self._traced(state, given, constants, figures)
            return after, told, outputs, wrong, elements

        return jax.vmap(step)(states, given, figures)
