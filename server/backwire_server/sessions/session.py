"""A session: a model in training that several callers share."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from backwire_server.engine.check import GradientCheck
from backwire_server.engine.model import Model
from backwire_server.sessions.budget import Account
from backwire_server.sessions.calls import (
    BackwardCall,
    BackwardResult,
    CheckCall,
    CountResult,
    ForwardCall,
    ForwardResult,
    StepOptions,
    StepResult,
    TrainCall,
    TrainResult,
)
from backwire_server.sessions.errors import SessionNotFound
from backwire_server.sessions.info import SessionInfo, Standing
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.locks import FairLock
from backwire_server.sessions.parameters import check_value, checked_names
from backwire_server.sessions.requests import Answer, RequestKey, RequestLog
from backwire_server.sessions.scope import CallScope
from backwire_server.sessions.snapshot import Snapshot
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.trainer import Trainer
from backwire_server.sessions.versions import Array

A = TypeVar("A", bound=Answer)


class Session:
    """A model in training. May be used by several threads at once: whatever computes takes its turn, in order.

    A call that fails changes nothing. Every mutation takes a RequestKey; a repeated one returns the first answer. All
    methods that compute raise SessionNotFound once the session was closed, and what `scope.check` raises when their
    caller has gone before the state was changed.
    """

    def __init__(self, session_id: str, spec: SessionSpec, limits: Limits, account: Account, address: str = "") -> None:
        """Checks the graph and draws the parameters; raises EngineError, and OutOfMemory before memory is taken."""
        self.session_id = session_id
        self._address = address
        self.created = self.last_used = time.time()
        self.idle_since = time.monotonic()
        self._spec = replace(spec, sources={})  # the first values are needed only now
        self._declared = {parameter.name: parameter for parameter in spec.graph.parameters}
        self._limits = limits
        self._account = account
        self._turn = FairLock()
        self._log = RequestLog()
        self._closed = False
        account.reserve(spec.state_bytes)
        try:
            self._trainer = Trainer(spec, Model(spec.graph), limits, account)
        except BaseException:
            account.settle(0)
            raise
        self._publish()

    def info(self) -> SessionInfo:
        """Returns what the session is and where it stands; does not wait for calls in progress."""
        graph, standing = self._spec.graph, self._standing
        oldest = time.monotonic() - self._limits.pass_ttl
        return SessionInfo(
            session_id=self.session_id,
            created=self.created,
            last_used=self.last_used,
            inputs=graph.inputs,
            parameters=graph.parameters,
            outputs=tuple(sorted(graph.outputs)),
            has_loss=graph.loss is not None,
            optimizer=self._spec.optimizer,
            seed=self._spec.seed,
            limits=self._limits,
            step=standing.step,
            contributions=standing.contributions,
            forward_ids=tuple(name for name, born in standing.births if born >= oldest),
            address=self._address,
        )

    def evaluate(self, scope: CallScope, call: ForwardCall) -> ForwardResult:
        """Computes outputs and loss in eval mode."""
        with self._my_turn(scope, reading=True):
            return self._trainer.evaluate(call)

    def check_gradients(self, scope: CallScope, call: CheckCall) -> GradientCheck:
        """Compares the gradient of the loss with central differences; changes nothing."""
        with self._my_turn(scope):
            return self._trainer.check_gradients(call, scope.check)

    def forward(self, scope: CallScope, call: ForwardCall, key: RequestKey | None = None) -> ForwardResult:
        """Computes outputs and loss in train mode and keeps the pass."""
        return self._mutate(scope, key, lambda: self._trainer.forward(call, scope.check))

    def backward(self, scope: CallScope, call: BackwardCall, key: RequestKey | None = None) -> BackwardResult:
        """Differentiates a pass: accumulates the gradients of parameters, returns those of inputs."""
        return self._mutate(scope, key, lambda: self._trainer.backward(call, scope.check))

    def step(self, scope: CallScope, options: StepOptions, key: RequestKey | None = None) -> StepResult:
        """Applies the accumulated gradients."""
        return self._mutate(scope, key, lambda: self._trainer.apply(options, scope.check))

    def train_step(self, scope: CallScope, call: TrainCall, key: RequestKey | None = None) -> TrainResult:
        """Does forward, backward and step as one mutation."""
        return self._mutate(scope, key, lambda: self._trainer.train(call, scope.check))

    def zero_gradients(self, scope: CallScope, key: RequestKey | None = None) -> CountResult:
        """Discards the accumulated gradients; the count is that of their contributions."""
        return self._mutate(scope, key, lambda: CountResult(self._trainer.zero_gradients(scope.check)))

    def check_parameter(self, name: str, dtype: np.dtype[np.generic], shape: Sequence[int]) -> None:
        """Raises UnknownParameter, DtypeMismatch or ShapeMismatch unless this may become the value of a parameter."""
        self.touch()
        check_value(self._declared, name, dtype, shape)

    def set_parameters(
        self, scope: CallScope, values: Mapping[str, Array], key: RequestKey | None = None
    ) -> CountResult:
        """Replaces the values of parameters, all or none; the count is the step number."""
        for name, array in values.items():
            self.check_parameter(name, array.dtype, array.shape)

        def apply() -> CountResult:
            self._trainer.set_parameters(values, scope.check)
            return CountResult(self._trainer.step)

        return self._mutate(scope, key, apply)

    def parameters(self, scope: CallScope, names: Sequence[str] = ()) -> Snapshot:
        """Returns the parameters of this moment, all for no names; to be closed after use."""
        with self._my_turn(scope):
            store = self._trainer.parameters
            chosen = store.select(names)
            arrays = [(name, store.arrays[name]) for name in chosen]
            return Snapshot(arrays, self._trainer.step, self._trainer.accumulator.contributions, store.current)

    def averages(self, scope: CallScope, names: Sequence[str] = ()) -> Snapshot:
        """Returns what `parameters` does, as copies, with the moving average of each trainable one for its value.

        Raises InvalidRequest when the optimizer keeps no averages.
        """
        with self._my_turn(scope):
            trainer = self._trainer
            values = {**trainer.parameters.arrays, **trainer.averages()}
            chosen = trainer.parameters.select(names)
            self._account.reserve(sum(values[name].nbytes for name in chosen))
            arrays = [(name, values[name].copy()) for name in chosen]
            return Snapshot(arrays, trainer.step, trainer.accumulator.contributions)

    def gradients(self, scope: CallScope, names: Sequence[str] = ()) -> Snapshot:
        """Returns the accumulated gradients of this moment, of all trainable parameters for no names; to be closed."""
        with self._my_turn(scope):
            sums = self._trainer.accumulator
            slots = self._trainer.parameters.layout.slots
            chosen = checked_names(names, slots, "trainable parameter")
            if not sums.contributions:
                zeros = [(name, np.broadcast_to(np.zeros((), slots[name].dtype), slots[name].shape)) for name in chosen]
                return Snapshot(zeros, self._trainer.step, 0)
            arrays = [(name, sums.current.arrays[name]) for name in chosen]
            return Snapshot(arrays, self._trainer.step, sums.contributions, sums.current)

    def close(self, scope: CallScope) -> None:
        """Ends the session after the calls before this one, and frees what it holds."""
        with self._my_turn(scope):
            scope.check()
            self._end()

    def touch(self) -> None:
        """Notes that the session is in use."""
        self.last_used, self.idle_since = time.time(), time.monotonic()

    def sweep(self) -> bool:
        """Drops passes that are too old and closes the session if it was idle for too long; tells if it is closed.

        Does nothing while a call is in progress.
        """
        if not self._turn.try_acquire():
            return False
        try:
            if self._closed:
                return True
            self._trainer.passes.expire()
            idle = time.monotonic() - self.idle_since
            if self._limits.idle_ttl is not None and idle > self._limits.idle_ttl:
                self._end()
            if not self._closed:
                self._publish()
            return self._closed
        finally:
            self._turn.release()

    def _mutate(self, scope: CallScope, key: RequestKey | None, action: Callable[[], A]) -> A:
        with self._my_turn(scope):
            if answer := self._log.find(key):
                return cast(A, answer)
            result = action()
            self._log.record(key, result)
            return result

    def _my_turn(self, scope: CallScope, *, reading: bool = False) -> "_Turn":
        """Returns the right to compute, as a context; `reading` promises to leave what `_publish` tells as it is."""
        return _Turn(self, scope, reading=reading)

    def _begin(self, scope: CallScope) -> None:
        self.touch()
        self._turn.acquire(scope)
        try:
            if self._closed:
                raise SessionNotFound(f"session {self.session_id!r} was deleted; create a new one", field="session_id")
            scope.check()
            if self._trainer.passes.expire():
                self._publish()
        except BaseException:
            self._finish(reading=True)
            raise

    def _finish(self, *, reading: bool) -> None:
        try:
            self.touch()
            if not (reading or self._closed):
                self._publish()
        finally:
            self._turn.release()

    def _publish(self) -> None:
        """Brings what others see of this session up to date: its standing and the bytes it holds."""
        trainer = self._trainer
        self._standing = Standing(trainer.step, trainer.accumulator.contributions, trainer.passes.births)
        self._account.settle(trainer.nbytes + self._log.nbytes)

    def _end(self) -> None:
        self._closed = True
        del self._trainer
        self._log = RequestLog()
        self._account.settle(0)


class _Turn:
    """A turn at a session. A class, since a generator as a context costs several times as much."""

    __slots__ = ("_reading", "_scope", "_session")

    def __init__(self, session: Session, scope: CallScope, *, reading: bool) -> None:
        self._session, self._scope, self._reading = session, scope, reading

    def __enter__(self) -> None:
        self._session._begin(self._scope)

    def __exit__(self, *_: object) -> None:
        self._session._finish(reading=self._reading)
