"""What a session computes: passes and their gradients, at once or in parts, within its limits and its memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from backwire_server.engine.check import GradientCheck, Sampling, check_gradients
from backwire_server.engine.model import Gradients, Model, Pass
from backwire_server.engine.profile import Profile, profile
from backwire_server.optim import Views
from backwire_server.optim.sharing import ALONE, Hands
from backwire_server.parallel.kept import Residue
from backwire_server.sessions.budget import Account
from backwire_server.sessions.calls import BackwardCall, ForwardCall, TrainCall, held_bytes
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spec import SessionSpec, check_data_parallel
from backwire_server.sessions.training.answering import check_answer
from backwire_server.sessions.training.batches import Batch, Whole
from backwire_server.sessions.training.parameters import ParameterStore
from backwire_server.sessions.training.passes import KeptPass
from backwire_server.sessions.training.sources import Current, Kept, Reserve, Source
from backwire_server.sessions.training.team import Team
from backwire_server.sessions.training.versions import Array
from backwire_server.sessions.training.working import Working

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

    def hands(self, asked: int) -> Hands:
        """Returns what works on the vectors of a step, for a call that asks for so many parts."""
        return ALONE if self._team is None else self._team.hands(self.parts(asked))

    def working(self, stop: CallStop) -> Working:
        """Returns what admits the computations of a call."""
        return Working(self.limits, self.account, stop)

    def evaluate(self, call: ForwardCall, values: Arrays, number: int, stop: CallStop) -> Pass:
        """Returns what a batch gives in eval mode."""
        return self._pass(call, values, number, stop, training=False)

    def forward(self, call: ForwardCall, store: ParameterStore, number: int, stop: CallStop) -> Whole:
        """Returns loss and outputs of a batch in training, whose passes are of this number and the next."""
        batch = self._cut(call, self.parts(call.data_parallel), number, stop)
        if batch is None:
            kept = self._pass(call, store.arrays, number, stop, training=True)
            return Whole(kept.loss, kept.outputs, updates=kept.updates, kept=kept)
        batch = replace(batch, differentiates=False, residue=Residue(self.limits.max_pass_bytes))
        return self._in_parts(batch, Current(store), Views(), stop, call)

    def backward(self, call: BackwardCall, kept: KeptPass, room: Views, scale: float, stop: CallStop) -> Gradients:
        """Returns the gradients of a pass, those of parameters in `room` if that is any.

        One that was made in parts is differentiated in as many, each of which is made again where it was not kept.
        """
        if kept.value is not None:
            with self.working(stop) as admit:
                found = self._model.backward(kept.value, call.output_gradients, call.wrt, room, stop, admit, scale)
            inputs = {name: kept.version.detached(array) for name, array in found.inputs.items()}
        else:
            whole = self._backward_in_parts(call, kept, room, scale, stop)
            found, inputs = Gradients(dict(whole.gradients), {}), dict(whole.inputs)
        check_answer(inputs, self.limits, chunked=call.chunked)
        return Gradients(found.parameters, inputs)

    def remade(self, call: ForwardCall, values: Arrays, number: int) -> tuple[Pass | None, int]:
        """Returns what is kept of a pass that was made before, as `forward` had it, and the bytes of that."""
        most = self.parts(call.data_parallel)
        if most > 1 and self._team_of().count(call.inputs, most) > 1:
            return None, held_bytes(call.inputs.values())
        found = self._model.forward(call.inputs, values, training=True, outputs=call.outputs, key=self.key(number))
        return found, found.nbytes

    def gradients(
        self,
        call: TrainCall,
        store: ParameterStore,
        number: int,
        room: Views,
        scale: float,
        stop: CallStop,
        reserve: Reserve,
    ) -> Whole:
        """Returns what a batch gives, whose passes are of this number and the next; gradients may lie in `room`.

        `scale` is what the loss is multiplied by meanwhile. `reserve` is told the bytes of a pass, and may raise.
        """
        asked = ForwardCall(call.inputs, call.outputs, chunked=call.chunked)
        batch = self._cut(asked, self.parts(call.data_parallel), number, stop)
        if batch is not None:
            return self._in_parts(replace(batch, scale=scale), Current(store), room, stop, asked)
        found = self._pass(asked, store.arrays, number, stop, training=True)
        reserve(found.nbytes)
        with self.working(stop) as admit:
            gradients = self._model.backward(found, into=room, stop=stop, admit=admit, scale=scale).parameters
        return Whole(found.loss, found.outputs, gradients, found.updates)

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
        remaining: Callable[[], float | None],
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
                remaining=remaining,
                reserve=self.account.reserve,
                stop=stop,
                admit=admit,
                compile_seconds=self.limits.max_compile_time,
                make=type(self._model),
            )

    def _pass(self, call: ForwardCall, values: Arrays, number: int, stop: CallStop, *, training: bool) -> Pass:
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

    def _backward_in_parts(
        self, call: BackwardCall, kept: KeptPass, room: Views, scale: float, stop: CallStop
    ) -> Whole:
        origin = kept.origin
        batch = self._cut(origin.call, self.parts(origin.call.data_parallel), origin.number, stop)
        assert batch is not None
        given, stopping = origin.call.inputs, self._model.compiling(stop)
        batch = self._team_of().differentiating(batch, given, call.output_gradients, call.wrt, stopping)
        source = Kept(origin.parameters, kept.version)
        return self._in_parts(replace(batch, scale=scale, residue=kept.residue), source, room, stop, origin.call)

    def _cut(self, call: ForwardCall, most: int, number: int, stop: CallStop) -> Batch | None:
        """Returns the batch in at most so many parts; None where it has only one."""
        if most <= 1:
            return None
        team = self._team_of()
        batch = team.cut(call.inputs, call.outputs, most, self.key(number), self._model.compiling(stop))
        return batch if len(batch.parts) > 1 else None

    def _team_of(self) -> Team:
        self._team = self._team or Team(self._graph, self._definition, helped=self._helped)
        return self._team

    def _in_parts(self, batch: Batch, source: Source, room: Views, stop: CallStop, call: ForwardCall) -> Whole:
        with self.working(stop) as working:
            found = self._team_of().compute(batch, self._model, source, room, working, stop, self.account.reserve)
        check_answer(found.outputs, self.limits, chunked=call.chunked)
        return found
