"""A session: a model in training that several callers share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np

from backwire_server.engine.check import GradientCheck
from backwire_server.sessions.calls import (
    Answered,
    BackwardCall,
    BackwardResult,
    CheckCall,
    CheckpointInfo,
    CountResult,
    DescribeCall,
    ForwardCall,
    ForwardResult,
    LeaseResult,
    SetCall,
    StepOptions,
    StepResult,
    TrainCall,
    TrainResult,
    ZeroCall,
)
from backwire_server.sessions.describing import MadeSession
from backwire_server.sessions.keeping.keeper import Keeper
from backwire_server.sessions.keeping.residence import Residence
from backwire_server.sessions.keeping.vault import Carrier
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.training.accumulator import ContributionsMissing
from backwire_server.sessions.training.imaging import state_of
from backwire_server.sessions.training.parameters import check_value, checked_names
from backwire_server.sessions.training.snapshot import Snapshot
from backwire_server.sessions.training.trainer import Mutating
from backwire_server.sessions.training.versions import Array

A = TypeVar("A", bound=Answered)


class Session(Residence):
    """A model in training. May be used by several threads at once: whatever computes takes its turn, in order.

    A call that fails changes nothing. Every mutation takes a RequestKey; a repeated one returns the first answer. Every
    mutation takes the number of the writer lease, too; see `sessions.lease`. All methods that compute raise
    SessionNotFound once the session was closed, Recovering while it is made from its journal again, what
    `Keeper.content` raises, and what `scope.check` raises when their caller has gone before the state was changed.
    """

    def evaluate(self, scope: CallScope, call: ForwardCall) -> ForwardResult:
        """Computes outputs and loss in eval mode."""
        with self.my_turn(scope, reading=True) as keeper:
            return keeper.evaluate(call, scope)

    def check_gradients(self, scope: CallScope, call: CheckCall) -> GradientCheck:
        """Compares the gradient of the loss with central differences; changes nothing."""
        with self.my_turn(scope) as keeper:
            return keeper.check_gradients(call, scope)

    def describe(self, scope: CallScope, call: DescribeCall) -> MadeSession:
        """Tells what it was made from and what a pass takes; changes nothing."""
        with self.my_turn(scope) as keeper:
            return keeper.describe(call, scope)

    def forward(
        self, scope: CallScope, call: ForwardCall, key: RequestKey | None = None, *, lease: int = 0
    ) -> ForwardResult:
        """Computes outputs and loss in train mode and keeps the pass."""
        return self._mutate(scope, key, lease, call, ForwardResult)

    def backward(
        self, scope: CallScope, call: BackwardCall, key: RequestKey | None = None, *, lease: int = 0
    ) -> BackwardResult:
        """Differentiates a pass: accumulates the gradients of parameters, returns those of inputs."""
        return self._mutate(scope, key, lease, call, BackwardResult)

    def step(
        self, scope: CallScope, options: StepOptions, key: RequestKey | None = None, *, lease: int = 0
    ) -> StepResult:
        """Applies the accumulated gradients; waits until there are as many as the options say."""
        while True:
            seen = self._changed.count
            try:
                return self._mutate(scope, key, lease, options, StepResult)
            except ContributionsMissing:
                self._changed.wait(seen, scope)

    def train_step(
        self, scope: CallScope, call: TrainCall, key: RequestKey | None = None, *, lease: int = 0
    ) -> TrainResult:
        """Does forward, backward and step as one mutation."""
        return self._mutate(scope, key, lease, call, TrainResult)

    def stage(self, call: TrainCall) -> None:
        """Sends the inputs of a TrainStep to where they will be computed with, while others compute; waits for none."""
        self._keeper.stage(call)

    def zero_gradients(self, scope: CallScope, key: RequestKey | None = None, *, lease: int = 0) -> CountResult:
        """Discards the accumulated gradients; the count is that of their contributions."""
        return self._mutate(scope, key, lease, ZeroCall(), CountResult)

    def check_parameter(self, name: str, dtype: np.dtype[np.generic], shape: Sequence[int]) -> None:
        """Raises UnknownParameter, DtypeMismatch or ShapeMismatch unless this may become the value of a parameter."""
        self.touch()
        check_value(self._keeper.declared, name, dtype, shape)

    def set_parameters(
        self, scope: CallScope, values: Mapping[str, Array], key: RequestKey | None = None, *, lease: int = 0
    ) -> CountResult:
        """Replaces the values of parameters, all or none; the count is the step number."""
        for name, array in values.items():
            self.check_parameter(name, array.dtype, array.shape)
        return self._mutate(scope, key, lease, SetCall(values), CountResult)

    def parameters(self, scope: CallScope, names: Sequence[str] = ()) -> Snapshot:
        """Returns the parameters of this moment, all for no names; to be closed after use."""
        with self.my_turn(scope) as keeper:
            trainer = keeper.content.trainer
            store = trainer.parameters
            arrays = [(name, store.arrays[name]) for name in store.select(names)]
            return Snapshot(arrays, trainer.step, trainer.accumulator.contributions, store.current)

    def averages(self, scope: CallScope, names: Sequence[str] = ()) -> Snapshot:
        """Returns what `parameters` does, as copies, with the moving average of each trainable one for its value.

        Raises InvalidRequest when the optimizer keeps no averages.
        """
        with self.my_turn(scope) as keeper:
            trainer = keeper.content.trainer
            values = {**trainer.parameters.arrays, **trainer.averages()}
            chosen = trainer.parameters.select(names)
            keeper.reserve(sum(values[name].nbytes for name in chosen))
            arrays = [(name, values[name].copy()) for name in chosen]
            return Snapshot(arrays, trainer.step, trainer.accumulator.contributions)

    def gradients(self, scope: CallScope, names: Sequence[str] = ()) -> Snapshot:
        """Returns the accumulated gradients of this moment, of all trainable parameters for no names; to be closed."""
        with self.my_turn(scope) as keeper:
            trainer = keeper.content.trainer
            sums, slots = trainer.accumulator, trainer.layout.slots
            chosen = checked_names(names, slots, "trainable parameter")
            if not sums.contributions:
                zeros = [(name, np.broadcast_to(np.zeros((), slots[name].dtype), slots[name].shape)) for name in chosen]
                return Snapshot(zeros, trainer.step, 0)
            arrays = [(name, sums.current.arrays[name]) for name in chosen]
            return Snapshot(arrays, trainer.step, sums.contributions, sums.current)

    def digest(self, scope: CallScope) -> str:
        """Returns the digest of the state; see `State.digest`."""
        with self.my_turn(scope, reading=True) as keeper:
            return state_of(keeper.content.trainer).digest()

    def export(self, scope: CallScope, carrier: Carrier) -> Iterator[bytes]:
        """Yields the session of this moment as a file, in pieces; others may go on meanwhile."""
        with self.my_turn(scope) as keeper:
            spec, image = keeper.spec, keeper.content.image()
        return carrier.pack(spec, image)

    def attach(
        self, scope: CallScope, holder: str, seconds: float, take_over: bool, key: RequestKey | None = None
    ) -> LeaseResult:
        """Gives the writer lease to a holder; raises LeaseHeld."""
        return self._once(scope, key, lambda keeper: keeper.content.lease.next(holder, seconds, take_over=take_over))

    def detach(self, scope: CallScope, number: int, key: RequestKey | None = None) -> LeaseResult:
        """Takes the writer lease of this number back; raises WriterFenced when it is not the current one."""
        return self._once(scope, key, lambda keeper: keeper.content.lease.ending(number))

    def save_checkpoint(self, scope: CallScope, name: str, key: RequestKey | None = None) -> CheckpointInfo:
        """Writes the state to disk under a name, one such at a time, while others go on.

        It is written and remembered also when its caller does not wait for that. Raises NotDurable, StorageFailed,
        DiskQuotaExceeded.
        """
        while True:
            with self.my_turn(scope, reading=True) as keeper:
                keeper.check_durable()
                if answer := keeper.content.log.find(key):
                    return cast(CheckpointInfo, answer)
                before = keeper.saving
                if before is None:
                    scope.check()
                    saving = keeper.save(name, key)
                    break
            before.wait(scope)  # with the same key it may be this very request
        saving.wait(scope)
        return saving.result()

    def checkpoints(self, scope: CallScope) -> list[CheckpointInfo]:
        """Returns the checkpoints on disk, oldest first; none for a session that is kept in memory alone."""
        with self.my_turn(scope, reading=True) as keeper:
            return keeper.files.checkpoints() if keeper.durable else []

    def delete_checkpoint(self, scope: CallScope, name: str, key: RequestKey | None = None) -> CountResult:
        """Removes a checkpoint that was saved; raises NotDurable, CheckpointNotFound."""

        def delete(keeper: Keeper) -> CountResult:
            scope.check()
            keeper.files.delete_checkpoint(name, key)
            return CountResult(1)

        return self._change_files(scope, key, delete)

    def restore_checkpoint(
        self, scope: CallScope, name: str, step: int | None, key: RequestKey | None = None, *, lease: int = 0
    ) -> CheckpointInfo:
        """Takes the session back to a checkpoint, or with no name to a step; see `Keeper.go_back`."""
        with self.my_turn(scope) as keeper:
            if answer := keeper.content.log.find(key):
                return cast(CheckpointInfo, answer)
            keeper.content.lease.check(lease)
            keeper.check_durable()
            scope.check()
            return keeper.go_back(name, step, key)

    def _mutate(self, scope: CallScope, key: RequestKey | None, lease: int, call: Mutating, _: type[A]) -> A:
        with self.my_turn(scope) as keeper:
            answer = keeper.content.log.find(key)
            if answer is None:
                keeper.content.lease.check(lease)
                answer = keeper.perform(call, key, scope)
                self.history.note(answer)
            flush = keeper.flush(scope)
        if flush is not None:
            scope.before_answer(flush)
        return cast(A, answer)

    def _once(self, scope: CallScope, key: RequestKey | None, prepare: Callable[[Keeper], Mutating]) -> LeaseResult:
        with self.my_turn(scope) as keeper:
            answer = keeper.content.log.find(key)
            if answer is None:
                answer = keeper.perform(prepare(keeper), key, scope)
            flush = keeper.flush(scope)
        if flush is not None:
            scope.before_answer(flush)
        return cast(LeaseResult, answer)

    def _change_files(self, scope: CallScope, key: RequestKey | None, act: Callable[[Keeper], A]) -> A:
        with self.my_turn(scope, reading=True) as keeper:
            keeper.check_durable()
            if answer := keeper.content.log.find(key):
                return cast(A, answer)
            answer = act(keeper)
            keeper.content.log.record(key, answer)
            return answer
