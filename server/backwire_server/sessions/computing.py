"""What a session computes: passes and their gradients, at once or in parts, within its limits and its memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from backwire_server.engine.check import GradientCheck, Sampling, check_gradients
from backwire_server.engine.model import Model, Pass
from backwire_server.engine.profile import Profile, profile
from backwire_server.sessions.answering import check_answer
from backwire_server.sessions.budget import Account
from backwire_server.sessions.calls import ForwardCall, TrainCall
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.parameters import ParameterStore
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spec import SessionSpec, check_data_parallel
from backwire_server.sessions.team import Team, Whole
from backwire_server.sessions.versions import Array
from backwire_server.sessions.working import Working

Arrays = Mapping[str, Array]


class Computing:
    """Computes with what it is given, and changes no state of the session. For one thread at a time.

    Attributes:
        limits: What it is held to.
        account: Who pays for its memory.
    """

    def __init__(self, spec: SessionSpec, model: Model, limits: Limits, account: Account) -> None:
        self._graph = spec.graph
        self._definition = spec.outline
        self._seed = spec.seed
        self._data_parallel = spec.data_parallel
        self._helped = spec.executor is Executor.NUMPY
        self._team: Team | None = None
        self._model = model
        self.hold_to(limits, account)

    @property
    def nbytes(self) -> int:
        """The bytes that it keeps to compute batches in parts."""
        return self._team.nbytes if self._team else 0

    def hold_to(self, limits: Limits, account: Account) -> None:
        """Replaces what limits it and who pays for its memory."""
        self.limits, self.account = limits, account
        self._model.compile_seconds = limits.max_compile_time

    def key(self, number: int) -> tuple[int, int]:
        """Returns what the random numbers of a pass in training are drawn from."""
        return self._seed, number

    def parts(self, asked: int) -> int:
        """Returns in how many parts a batch is computed at most, where a call asks for so many; raises InvalidRequest.

        A call that asks for 0 leaves it to the session.
        """
        return check_data_parallel(asked) or self._data_parallel

    def working(self, stop: CallStop) -> Working:
        """Returns what admits the computations of a call."""
        return Working(self.limits, self.account, stop)

    def forward(self, call: ForwardCall, values: Arrays, number: int, stop: CallStop, *, training: bool) -> Pass:
        """Returns the pass of this number, whose outputs fit into an answer."""
        with self.working(stop) as admit:
            found = self._model.forward(
                call.inputs,
                values,
                training=training,
                outputs=call.outputs,
                key=self.key(number),
                stop=stop,
                admit=admit,
            )
        check_answer(found.outputs, self.limits, chunked=call.chunked)
        return found

    def gradients(
        self,
        call: TrainCall,
        store: ParameterStore,
        number: int,
        room: Arrays,
        scale: float,
        stop: CallStop,
        reserve: Callable[[int], None],
    ) -> Whole:
        """Returns what a batch gives, whose passes are of this number and the next; gradients may lie in `room`.

        `scale` is what the loss is multiplied by meanwhile. `reserve` is told the bytes of a pass, and may raise.
        """
        found = self._in_parts(call, store, number, room, scale, stop)
        return found or self._at_once(call, store, number, room, scale, stop, reserve)

    def profile(self, inputs: Arrays, values: Arrays, number: int, passes: int, stop: CallStop) -> Profile:
        """Measures so many passes, each as the one of this number would be."""
        with self.working(stop) as admit:
            return profile(
                self._model,
                inputs,
                values,
                passes,
                key=self.key(number),
                reserve=self.account.reserve,
                stop=stop,
                admit=admit,
            )

    def check_gradients(
        self,
        inputs: Arrays,
        values: Arrays,
        sampling: Sampling,
        number: int,
        ready: Callable[[], None],
        stop: CallStop,
    ) -> GradientCheck:
        """Compares gradients of the loss with central differences, as the pass of this number would find them."""
        with self.working(stop) as admit:
            return check_gradients(
                self._graph,
                inputs,
                values,
                sampling,
                key=self.key(number),
                ready=ready,
                reserve=self.account.reserve,
                stop=stop,
                admit=admit,
                compile_seconds=self.limits.max_compile_time,
                make=type(self._model),
            )

    def _at_once(
        self,
        call: TrainCall,
        store: ParameterStore,
        number: int,
        room: Arrays,
        scale: float,
        stop: CallStop,
        reserve: Callable[[int], None],
    ) -> Whole:
        asked = ForwardCall(call.inputs, call.outputs, chunked=call.chunked)
        found = self.forward(asked, store.arrays, number, stop, training=True)
        reserve(found.nbytes)
        with self.working(stop) as admit:
            gradients = self._model.backward(found, into=room, stop=stop, admit=admit, scale=scale).parameters
        assert found.loss is not None
        return Whole(found.loss, found.outputs, gradients, found.updates)

    def _in_parts(
        self, call: TrainCall, store: ParameterStore, number: int, room: Arrays, scale: float, stop: CallStop
    ) -> Whole | None:
        """Returns what the batch gives when it is computed in parts; None where it has only one."""
        most = self.parts(call.data_parallel)
        if most <= 1:
            return None
        self._team = self._team or Team(self._graph, self._definition, helped=self._helped)
        batch = self._team.cut(call.inputs, call.outputs, most, self.key(number), self._model.compiling(stop))
        if len(batch.parts) == 1:
            return None
        batch = replace(batch, scale=scale)
        with self.working(stop) as working:
            found = self._team.compute(batch, self._model, store, room, working, stop, self.account.reserve)
        check_answer(found.outputs, self.limits, chunked=call.chunked)
        return found
