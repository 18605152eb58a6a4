"""Training steps that a device computes whole, with the parameters and the optimizer's memory left on it."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from backwire_server.engine.errors import EngineError
from backwire_server.sessions.calls import StepResult, TrainCall, TrainResult
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.answering import check_answer
from backwire_server.sessions.training.scaling import factor_of, is_skipped
from backwire_server.sessions.training.trainer import Trainer
from backwire_server.sessions.training.training_state import NEVER, Ready
from backwire_server.sessions.training.versions import Array, MemoryVersion, Version
from backwire_server.xla.model import XlaModel
from backwire_server.xla.optimizing import TracedOptimizer
from backwire_server.xla.state import DeviceState, room_for, uploaded
from backwire_server.xla.stepping import Stepped

STAGED_BYTES = 1 << 20
"""Fewer are given with their step: to send them ahead takes longer than it saves."""


class _Next(NamedTuple):
    """What a step leads to, and what it told; see `Running.result`."""

    parameters: Version
    memory: MemoryVersion
    found: Stepped | None


class DeviceTrainer(Trainer):
    """A Trainer whose TrainStep is one computation on a device, where its optimizer can be traced.

    It steps as a Trainer does, within rounding, where gradients have been accumulated, have a weight, are so small or
    large that their norm may be wrong, or are applied though they are not finite. What the device has is fetched once
    somebody looks at it.
    """

    _model: XlaModel

    def __init__(self, spec: SessionSpec, *given: Any) -> None:
        """As of Trainer."""
        super().__init__(spec, *given)
        optimizer = spec.optimizer if spec.graph.loss is not None else None
        self._traced = None if optimizer is None else TracedOptimizer.of(optimizer, self.layout)
        self._spare: DeviceState | None = None
        self._frozen: dict[str, tuple[Array, Any]] = {}

    def train(self, call: TrainCall, ready: Ready, stop: CallStop = NEVER) -> TrainResult:
        """Does `forward`, `backward` and `apply` in one."""
        optimizer, options = self._check_step(call.options), call.options
        if self._traced is None or not self._is_whole(call):
            return super().train(call, ready, stop)
        rate = optimizer.rate(self.step + 1) if options.learning_rate is None else options.learning_rate
        after = self._stepped(self._traced, call, rate, stop)
        found = after.found
        skipped = found is not None and is_skipped(found.culprit, options.non_finite, self.scaling)
        if found is None or (found.culprit and not skipped):
            return super().train(call, ready, stop)
        check_answer(found.outputs, self._computing.limits, chunked=call.chunked)
        if skipped:
            ready()
        else:
            doomed = self._make_way(self.layout.slots)
            ready()
            self._advance(after)
            self.passes.make_room(doomed)
            self.step += 1
        self.scaling = self.scaling and self.scaling.after(finite=not skipped)
        scale = None if self.scaling is None else self.scaling.value
        result = StepResult(self.step, found.norm, rate, 1, skipped, found.culprit or "", loss_scale=scale)
        self._finish_passes(1, found.updates)
        return TrainResult(self._told(result, options), found.loss, found.outputs)

    def _is_whole(self, call: TrainCall) -> bool:
        """Whether the step takes the gradients of one pass alone, as they are."""
        return not self.accumulator.contributions and self._may_be_whole(call)

    def _may_be_whole(self, call: TrainCall) -> bool:
        in_parts = self._computing.parts(call.data_parallel) > 1
        return not in_parts and call.options.after_contributions <= 1 and call.weight == 1

    def stage(self, call: TrainCall) -> None:
        """Sends the inputs of a TrainStep to the device before its turn, while another computes. For any thread.

        Does nothing for a step that will not be in one piece, which takes them from here, nor about what is wrong with
        them: that is told when they have their turn.
        """
        if self._traced is not None and sum(each.nbytes for each in call.inputs.values()) >= STAGED_BYTES:
            with suppress(EngineError, InvalidRequest):
                if self._may_be_whole(call):
                    call.staged.update(self._model.stage(call.inputs, call.outputs))

    def _stepped(self, traced: TracedOptimizer, call: TrainCall, rate: float, stop: CallStop) -> _Next:
        state = self._on_device(traced)
        spare, self._spare = self._spare or room_for(state), None
        with self._computing.working(stop) as admit:
            running = self._model.train_step(
                call.inputs,
                state,
                spare,
                self._frozen_on_device(),
                traced,
                traced.figures(self.step + 1, rate),
                staged=call.staged,
                outputs=call.outputs,
                key=self._computing.key(self.forwards),
                stop=stop,
                admit=admit,
                scale=factor_of(self.scaling),
            )
            # While the device computes:
            after, nbytes = running.state, self.memory.current.nbytes
            del spare
            parameters = Version(self.layout, partial(traced.packed, after.parameters), after.parameters)
            memory = MemoryVersion(partial(traced.gathered, after.memory), nbytes, after.memory)
            found = running.result()
        self._spare = after  # unless it becomes the state
        return _Next(parameters, memory, found)

    def _on_device(self, traced: TracedOptimizer) -> DeviceState:
        """Returns the current state on the device, which has it from now on."""
        parameters, memory = self.parameters.current, self.memory.current
        if parameters.elsewhere is None or memory.elsewhere is None:
            sharding = self._model.sharding
            parameters.elsewhere = uploaded(traced.arrays(parameters.vectors), sharding)
            memory.elsewhere = uploaded(traced.spread(memory.state), sharding)
        return DeviceState(parameters.elsewhere, memory.elsewhere)

    def _frozen_on_device(self) -> Mapping[str, Any]:
        if not self.parameters.frozen:
            return {}
        stale = {name: each for name, each in self.parameters.frozen.items() if self._source_of(name) is not each}
        if stale:
            found = uploaded(tuple(stale.values()), self._model.sharding)
            self._frozen.update({name: (stale[name], array) for name, array in zip(stale, found, strict=True)})
        return {name: there for name, (_, there) in self._frozen.items()}

    def _source_of(self, name: str) -> Array | None:
        return self._frozen[name][0] if name in self._frozen else None

    def _advance(self, after: _Next) -> None:
        """Makes the new state the current one, and what nobody holds of the old one room for the next."""
        parameters, memory = self.parameters.current, self.memory.current
        held = parameters.holders or memory.holders
        self._spare = None if held else DeviceState(parameters.elsewhere, memory.elsewhere)
        self.parameters.trainable.replace(after.parameters)
        self.memory.replace(after.memory)
        self.parameters.refresh()
