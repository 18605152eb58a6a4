"""The state of one model in training, and what can be asked of it."""

import math
from collections.abc import Callable, Mapping

from backwire_server import optim
from backwire_server.engine.check import GradientCheck, Sampling
from backwire_server.engine.model import Model
from backwire_server.engine.precision import needs_scale
from backwire_server.engine.profile import Profile
from backwire_server.sessions.budget import Account
from backwire_server.sessions.calls import CheckCall, ForwardCall, ForwardResult, StepOptions
from backwire_server.sessions.errors import InvalidRequest, NoLoss, NoOptimizer, StepMismatch
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.accumulator import Accumulator
from backwire_server.sessions.training.computing import Computing
from backwire_server.sessions.training.parameters import ParameterStore, checked_names
from backwire_server.sessions.training.passes import PassTable
from backwire_server.sessions.training.scaling import LossScale
from backwire_server.sessions.training.versions import Array, MemoryVersion, Versioned

Ready = Callable[[], None]

NEVER = CallStop()
"""That of a computation that nobody stops or pays for. Not to be set."""

CHECKED_ELEMENTS = 64  # of each parameter, where the call does not say


class TrainingState:
    """Parameters, passes, accumulated gradients and optimizer state of a session. For one thread at a time.

    Attributes:
        step: The number of steps applied.
        forwards: The number of passes made in training, each part of a batch one, which is the number of the next.
        graph: What is trained.
        layout: Where the trainable parameters lie.
        memory: What the optimizer remembers.
        settled: Whether nothing has changed since the last step.
        scaling: What the loss is multiplied by on the way to gradients; None where that is not needed.
    """

    def __init__(
        self,
        spec: SessionSpec,
        model: Model,
        limits: Limits,
        account: Account,
        parameters: ParameterStore | None = None,
        memory: MemoryVersion | None = None,
    ) -> None:
        """Draws the parameters and begins with an empty memory, unless they are given.

        What the state holds has been reserved before.
        """
        self.step = 0
        self.settled = True
        self.forwards = 0
        self.scaling = LossScale() if needs_scale(spec.graph.precision) else None
        self.passes = PassTable(limits)
        self.parameters = parameters or ParameterStore(spec.graph, spec.draw())
        self.accumulator = Accumulator(self.parameters.layout)
        self.graph = spec.graph
        self._optimizer = spec.optimizer
        self._max_staleness = spec.max_staleness
        self._model = model
        self._computing = Computing(spec, model, limits, account)
        self.layout = self.parameters.layout
        self._state_bytes = spec.state_bytes
        if memory is None:
            memory = MemoryVersion.of(optim.init(spec.optimizer, self.layout) if spec.optimizer else {})
        self.memory = Versioned(memory)
        self._stepper = optim.Stepper(spec.optimizer, self.layout) if spec.optimizer else None

    @property
    def nbytes(self) -> int:
        """The bytes that the state and the live passes hold."""
        passes = self.passes.nbytes(self.parameters.buffers) + self.passes.residue_bytes if self.passes else 0
        return self._state_bytes + self._computing.nbytes + passes

    def evaluate(self, call: ForwardCall, stop: CallStop = NEVER) -> ForwardResult:
        """Computes outputs and loss without a trace."""
        if call.forward_id:
            raise InvalidRequest("a pass in eval mode has no forward_id; leave it empty", field="forward_id")
        found = self._computing.evaluate(call, self.parameters.arrays, self.forwards, stop)
        return ForwardResult("", found.outputs, found.loss, self.step)

    def held_to(self, limits: Limits, account: Account) -> None:
        """Replaces what limits it and who pays for its memory; passes that are too many now are dropped."""
        self.passes.limits = limits
        self._computing.hold_to(limits, account)
        self.passes.enforce(self.parameters.buffers)

    def averages(self) -> Mapping[str, Array]:
        """Returns the moving average of each trainable parameter, at step 0 its value; the next step changes them.

        Raises InvalidRequest when the optimizer keeps no averages.
        """
        if self._optimizer is None or self._optimizer.average_decay is None:
            raise InvalidRequest(
                "the session keeps no averages; create one whose optimizer has average_decay, or read the parameters",
                field="averaged",
            )
        found = optim.averages(self.memory.current.state)
        return self.layout.views(found) if found and self.step else self.parameters.current.arrays

    def check_gradients(
        self, call: CheckCall, ready: Ready, remaining: Callable[[], float | None], stop: CallStop = NEVER
    ) -> GradientCheck:
        """Compares the gradient of the loss with central differences, as the next pass in training would find it."""
        self._require_loss("set one")
        if call.max_elements < 0:
            raise InvalidRequest(
                f"max_elements is {call.max_elements}; give a number above 0, or 0 for {CHECKED_ELEMENTS}",
                field="max_elements",
            )
        names = checked_names(call.names, self.layout.slots, "trainable parameter")
        sampling = Sampling(names, call.max_elements or CHECKED_ELEMENTS, call.seed)
        values = self.parameters.arrays
        return self._computing.check_gradients(call.inputs, values, sampling, self.forwards, ready, remaining, stop)

    def profile(self, inputs: Mapping[str, Array], passes: int, stop: CallStop = NEVER) -> Profile:
        """Measures so many passes, each as the next one in training would be."""
        return self._computing.profile(inputs, self.parameters.arrays, self.forwards, passes, stop)

    def _check_step(self, options: StepOptions) -> optim.Optimizer:
        optimizer = self._optimizer
        if optimizer is None:
            raise NoOptimizer("the session has no optimizer; create one with an optimizer, or apply gradients yourself")
        rate = options.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            raise InvalidRequest(
                f"the learning rate is {rate:g}; give a finite number of at least 0", field="options.learning_rate"
            )
        if options.expected_step not in (None, self.step):
            raise StepMismatch(
                f"the session is at step {self.step}, not {options.expected_step}; another client may have stepped: "
                "read the state again",
                field="options.expected_step",
            )
        return optimizer

    def _require_loss(self, remedy: str) -> None:
        if self.graph.loss is None:
            raise NoLoss(f"the graph has no loss; {remedy}, or create a session from a graph with a loss")
