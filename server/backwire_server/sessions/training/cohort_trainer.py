"""Training steps that a device computes for several sessions at once, with the states of all stacked on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from backwire_server.engine.builder import RANDOM_KEY
from backwire_server.optim import OptimizerState, Vectors
from backwire_server.sessions.calls import StepResult, TrainCall, TrainResult
from backwire_server.sessions.errors import SessionLost
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.answering import check_answer
from backwire_server.sessions.training.device_trainer import DeviceTrainer
from backwire_server.sessions.training.together import Joining
from backwire_server.sessions.training.trainer import Mutating
from backwire_server.sessions.training.training_state import NEVER, Ready
from backwire_server.sessions.training.versions import MemoryVersion, Version
from backwire_server.sessions.turns.line import Seat, line_of
from backwire_server.sessions.turns.processor_turn import Turn
from backwire_server.xla.cohort import Slot, StateLost, pays
from backwire_server.xla.group_step import Answer, Member
from backwire_server.xla.optimizing import TracedOptimizer


class CohortTrainer(DeviceTrainer, Joining):
    """A DeviceTrainer whose steps are computed together with those of others that wait, where all have trained alike.

    Its state has a slot of the cohort of its graph and optimizer. It leaves that, and steps as a DeviceTrainer does,
    where that one would not step in one piece, where parameters are frozen, where batches are split over devices, where
    the loss is scaled, where the plan depends on elements, and where the state is so large that groups do not pay.
    """

    def __init__(self, spec: SessionSpec, *given: Any) -> None:
        """As of Trainer."""
        super().__init__(spec, *given)
        _ = self.memory.current.state  # fetched as long as who shares it stands still
        self._slot: Slot | None = None
        self._found: tuple[Answer, float, list[str]] | None = None
        alike = self._model.sharding is None and self.scaling is None and not self.parameters.frozen
        self._groups = alike and pays(self.parameters.current.nbytes + self.memory.current.nbytes)

    @contextmanager
    def joining(self, call: Mutating, ready: Ready, turn: Turn) -> Iterator[CallStop]:
        """As of Joining."""
        self._found = self._computed(self._traced, call, ready, turn) if isinstance(call, TrainCall) else None
        if self._found is not None:
            yield turn.stop
            return
        with turn.anew() as stop:
            yield stop

    def stage(self, call: TrainCall) -> None:
        """As that of a DeviceTrainer, but for those whose steps are computed together: these take theirs from here."""
        if not self._groups:
            super().stage(call)

    def train(self, call: TrainCall, ready: Ready, stop: CallStop = NEVER) -> TrainResult:
        """Does `forward`, `backward` and `apply` in one, unless that was done when the call joined others."""
        found, self._found = self._found, None
        if found is None:
            self._leave()
            return super().train(call, ready, stop)
        answer, rate, doomed = found
        assert self._slot is not None
        assert self._traced is not None
        self._follow(self._traced, self._slot)
        self.passes.make_room(doomed)
        self.step += 1
        result = StepResult(self.step, answer.norm, rate, 1)
        self._finish_passes(1, {})
        return TrainResult(self._told(result, call.options), answer.loss, answer.outputs)

    def _computed(
        self, traced: TracedOptimizer | None, call: TrainCall, ready: Ready, turn: Turn
    ) -> tuple[Answer, float, list[str]] | None:
        """Returns what a step led to that was computed with others, its rate, and which passes must go.

        None for one that is to be computed alone.
        """
        optimizer, options = self._check_step(call.options), call.options
        if traced is None or not self._groups or not self._is_whole(call):
            return None

        def accept(answer: Answer) -> None:
            check_answer(answer.outputs, self._computing.limits, chunked=call.chunked)
            ready()

        with self._computing.working(turn.stop) as admit:
            step = self._model.group_step(call.inputs, traced, outputs=call.outputs, stop=turn.stop, admit=admit)
            if step is None:
                return None
            doomed = self._make_way(self.layout.slots)
            rate = optimizer.rate(self.step + 1) if options.learning_rate is None else options.learning_rate
            member = self._member(traced, call, rate)
            seat = Seat(partial(step.compute, member.slot.cohort), member, accept, turn)
            answer = line_of(step).compute(seat)
        return None if answer is None else (answer, rate, doomed)

    def _member(self, traced: TracedOptimizer, call: TrainCall, rate: float) -> Member:
        feeds = {**call.inputs, RANDOM_KEY: np.array(self._computing.key(self.forwards), np.uint64)}
        return Member(self._entered(traced), feeds, traced.figures(self.step + 1, rate))

    def _entered(self, traced: TracedOptimizer) -> Slot:
        """Returns the slot, with the current state in it; what others hold of that is fetched before it changes."""
        parameters, memory, slot = self.parameters.current, self.memory.current, self._slot
        if slot is None or slot.lost or parameters.elsewhere is not slot or memory.elsewhere is not slot:
            state = traced.arrays(parameters.vectors), traced.spread(memory.state)
            if slot is None or slot.lost:
                slot = self._model.cohort(traced).enter(*state)
            else:
                slot.write(*state)
            self._slot, self._spare = slot, None
            if not (parameters.holders or memory.holders):  # a branch or its parent may look there at this moment
                parameters.elsewhere = memory.elsewhere = slot
        if parameters.holders or memory.holders:
            _ = parameters.vectors, memory.state
        return slot

    def _leave(self) -> None:
        """Has the state here, for whoever computes it alone."""
        if isinstance(self.parameters.current.elsewhere, Slot):
            self.parameters.current.own()
            self.memory.current.own()
        self._slot = None

    def _follow(self, traced: TracedOptimizer, slot: Slot) -> None:
        """Makes what the slot has now the current state."""
        values = partial(_fetched, traced, slot)
        self.parameters.trainable.replace(Version(self.layout, values, slot))
        memory = partial(_remembered, traced, slot)
        self.memory.replace(MemoryVersion(memory, self.memory.current.nbytes, slot))
        self.parameters.refresh()


def _fetched(traced: TracedOptimizer, slot: Slot) -> Vectors:
    with _telling_of_loss():
        return traced.packed(slot.parameters())


def _remembered(traced: TracedOptimizer, slot: Slot) -> OptimizerState:
    with _telling_of_loss():
        return traced.gathered(slot.memory())


@contextmanager
def _telling_of_loss() -> Iterator[None]:
    try:
        yield
    except StateLost as error:
        raise SessionLost(
            "the device failed while it replaced the states of sessions, and lost that of this one; create it again",
            field="session_id",
        ) from error
