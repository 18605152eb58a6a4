"""The transitions between the states of a model in training.

Every transition computes first, then asks `ready` whether the caller still waits, then changes the state in one go that
cannot fail: whatever it raises, it has changed nothing. What runs a graph is told by `stop` when nobody waits any more,
and raises Stopped then.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from backwire_server import optim
from backwire_server.optim.sharing import Hands
from backwire_server.sessions.calls import (
    BackwardCall,
    BackwardResult,
    BranchCall,
    CountResult,
    ForwardCall,
    ForwardResult,
    LeaseCall,
    SetCall,
    StepOptions,
    StepResult,
    TrainCall,
    TrainResult,
    ZeroCall,
    held_bytes,
)
from backwire_server.sessions.errors import NoGradients
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.training.accumulator import ContributionsMissing, check_weight
from backwire_server.sessions.training.imaging import state_of
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.passes import Origin, check_age
from backwire_server.sessions.training.scaling import factor_of, is_skipped
from backwire_server.sessions.training.state import PassImage
from backwire_server.sessions.training.training_state import NEVER, Ready, TrainingState
from backwire_server.sessions.training.versions import Array

Mutating = ForwardCall | BackwardCall | StepOptions | TrainCall | SetCall | ZeroCall | LeaseCall | BranchCall


class Trainer(TrainingState):
    """Changes a TrainingState."""

    def perform(self, call: Mutating, ready: Ready, stop: CallStop = NEVER) -> Any:
        """Does what a mutating call of any kind asks for that changes the state, and returns its answer."""
        before = self.step
        if (compute := _COMPUTING.get(type(call))) is not None:
            answer = compute(self, call, ready, stop)
        else:
            answer = _CHANGING[type(call)](self, call, ready)
        self.settled = self.step > before
        return answer

    def explicit(self, call: Mutating) -> Mutating:
        """Returns the call with what it leaves to the session said in it, for the journal: the parts of a Forward."""
        if isinstance(call, ForwardCall) and (parts := self._computing.parts(call.data_parallel)) > 1:
            return replace(call, data_parallel=parts)
        return call

    def forward(self, call: ForwardCall, ready: Ready, stop: CallStop = NEVER) -> ForwardResult:
        """Computes outputs and loss, and keeps the pass."""
        self.passes.check_name(call.forward_id)
        found = self._computing.forward(call, self.parameters, self.forwards, stop)
        nbytes = held_bytes(call.inputs.values()) if found.kept is None else found.kept.nbytes
        self._reserve_pass(nbytes)
        ready()
        name = call.forward_id or self.passes.fresh_name(self.forwards)
        origin = Origin(call, self.forwards, self.step, self.parameters.arrays)
        self.passes.add(name, found.kept, origin, self.parameters, nbytes, found.residue)
        self._finish_passes(found.passes, found.updates)
        return ForwardResult(name, found.outputs, found.loss, self.step)

    def backward(self, call: BackwardCall, ready: Ready, stop: CallStop = NEVER) -> BackwardResult:
        """Accumulates the gradients of the parameters and returns those of inputs."""
        kept = self.passes.find(call.forward_id)
        check_age(call.forward_id, self.step - kept.origin.step, self._max_staleness)
        check_weight(call.weight)
        if not call.output_gradients:
            self._require_loss("give output_gradients")
        room = self.accumulator.room(call.weight)
        found = self._computing.backward(call, kept, room, factor_of(self.scaling), stop)
        self.accumulator.check(call.weight)
        ready()
        self.accumulator.add(found.parameters, call.weight)
        if not call.retain:
            self.passes.use_up(call.forward_id)
        return BackwardResult(found.inputs, self.accumulator.contributions)

    def apply(self, options: StepOptions, ready: Ready) -> StepResult:
        """Applies the accumulated gradients, and clears them."""
        return self._told(self._apply(options, ready, self._computing.hands(0)), options)

    def stage(self, call: TrainCall) -> None:
        """Sends inputs to where they will be computed with, for any thread; here they are there already."""

    def train(self, call: TrainCall, ready: Ready, stop: CallStop = NEVER) -> TrainResult:
        """Does `forward`, `backward` and `apply` in one, with the same results to the bit."""
        self._check_step(call.options)
        self._require_loss("train it by Forward, Backward with output_gradients, and Step")
        check_weight(call.weight)
        room, scale = self.accumulator.room(call.weight), factor_of(self.scaling)
        found = self._computing.gradients(call, self.parameters, self.forwards, room, scale, stop, self._reserve_pass)
        with self.accumulator.tentative():
            self.accumulator.add(found.gradients, call.weight)
            norm = found.norm if room else None
            result = self._apply(call.options, ready, self._computing.hands(call.data_parallel), norm)
        self._finish_passes(found.passes, found.updates)
        assert found.loss is not None
        return TrainResult(self._told(result, call.options), found.loss, found.outputs)

    def set_parameters(self, call: SetCall, ready: Ready) -> CountResult:
        """Replaces the values of parameters, each of which passed `check_value`; the count is the step number."""
        doomed = self._make_way(call.values)
        ready()
        self.parameters.replace(call.values, leaving=self.passes.holders(doomed, self.parameters.current))
        self.passes.make_room(doomed)
        return CountResult(self.step)

    def remake(self, image: PassImage, parameters: ParameterStore) -> None:
        """Makes a pass again, which keeps its name; `parameters` are those that it was made with."""
        call = image.call
        value, nbytes = self._computing.remade(call, parameters.arrays, image.number)
        origin = Origin(call, image.number, image.step, parameters.arrays)
        self.passes.add(image.name, value, origin, parameters, nbytes)

    def zero_gradients(self, _: ZeroCall, ready: Ready) -> CountResult:
        """Discards the accumulated gradients and returns how many contributions they had."""
        ready()
        contributions = self.accumulator.contributions
        self.accumulator.clear()
        return CountResult(contributions)

    def _apply(self, options: StepOptions, ready: Ready, hands: Hands, norm: float | None = None) -> StepResult:
        """Does so; `norm` is that of the accumulated gradients, where it is known."""
        optimizer = self._check_step(options)
        if self.accumulator.contributions < options.after_contributions:
            raise ContributionsMissing
        if not self.accumulator.contributions:
            raise NoGradients("nothing was accumulated since the last Step; run Backward first")
        gradients = self.accumulator.combined(options.normalization)
        norm = optim.global_norm(gradients) if norm is None else norm
        culprit = None if math.isfinite(norm) else optim.first_non_finite(self.layout, gradients)
        skipped = is_skipped(culprit, options.non_finite, self.scaling)
        rate = optimizer.rate(self.step + 1) if options.learning_rate is None else options.learning_rate
        if skipped:
            ready()
        else:
            assert self._stepper is not None
            self._update(self._stepper, gradients, rate, ready, hands)
        contributions = self.accumulator.contributions
        self.accumulator.clear()
        self.scaling = self.scaling and self.scaling.after(finite=not culprit)
        scale = None if self.scaling is None else self.scaling.value
        return StepResult(self.step, norm, rate, contributions, skipped, culprit or "", loss_scale=scale)

    def _told(self, result: StepResult, options: StepOptions) -> StepResult:
        """Returns the result of a step that is complete, with the digest if it is wanted."""
        return replace(result, digest=state_of(self).digest()) if options.digest else result

    def _reserve_pass(self, nbytes: int) -> None:
        self.passes.check_size(nbytes)
        self._computing.account.reserve(nbytes)

    def _finish_passes(self, count: int, updates: Mapping[str, Array]) -> None:
        """Counts passes made in training, and gives the frozen parameters that they update their next values."""
        self.forwards += count
        if updates:
            self.parameters.replace_frozen(updates)
            self.passes.make_room(self.passes.surplus(self.parameters.buffers))

    def _update(
        self, stepper: optim.Stepper, gradients: optim.Vectors, rate: float, ready: Ready, hands: Hands
    ) -> None:
        doomed = self._make_way(self.layout.slots)
        leaving = self.passes.holders(doomed, self.parameters.current)
        with self.parameters.trainable.writing(leaving=leaving) as version, self.memory.writing() as memory:
            ready()
            step = self.step + 1
            stepper.apply(version.vectors, gradients, memory.state, step=step, learning_rate=rate, hands=hands)
        self.parameters.refresh()
        self.passes.make_room(doomed)
        self.step += 1

    def _make_way(self, changing: Collection[str]) -> list[str]:
        """Returns which passes must go when these parameters change: those that stay keep the old values alive."""
        doomed = self.passes.surplus(self.parameters.staying(changing)) if self.passes else []
        current, memory = self.parameters.current, self.memory.current
        if current.holders > self.passes.holders(doomed, current):
            self._computing.account.reserve(current.nbytes)
        if memory.holders:
            self._computing.account.reserve(memory.nbytes)
        return doomed


_COMPUTING: Mapping[type, Callable[[Trainer, Any, Ready, CallStop], Any]] = {
    ForwardCall: Trainer.forward,
    BackwardCall: Trainer.backward,
    TrainCall: lambda trainer, *given: trainer.train(*given),
}
_CHANGING: Mapping[type, Callable[[Trainer, Any, Ready], Any]] = {
    StepOptions: Trainer.apply,
    SetCall: Trainer.set_parameters,
    ZeroCall: Trainer.zero_gradients,
}
