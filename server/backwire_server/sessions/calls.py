"""What a session is asked to do, and what it answers: plain data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.sessions.training.versions import Array, owner

OVERHEAD_BYTES = 256  # what keeping any answer costs, roughly


@dataclass(frozen=True, slots=True)
class ForwardCall:
    """Inputs by name; the outputs to return, None for all; a name for the pass, empty to have one chosen.

    `chunked` tells that the answer may be larger than a message, here and in other calls. `data_parallel` is in how
    many parts a pass in training is computed, 0 for as many as the session says.
    """

    inputs: Mapping[str, Array]
    outputs: Sequence[str] | None = None
    forward_id: str = ""
    chunked: bool = False
    data_parallel: int = 0


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """Outputs by name, the loss if it was computed, and the step whose parameters were used.

    `forward_id` is empty in eval mode. The arrays are not to be written to.
    """

    forward_id: str
    outputs: Mapping[str, Array]
    loss: float | None
    step: int

    @property
    def nbytes(self) -> int:
        """The bytes that keeping it costs."""
        return OVERHEAD_BYTES + held_bytes(self.outputs.values())


@dataclass(frozen=True, slots=True)
class BackwardCall:
    """Which pass to differentiate, and how; see BackwardRequest in the contract."""

    forward_id: str
    output_gradients: Mapping[str, Array] = field(default_factory=dict)
    wrt: Sequence[str] = ()
    retain: bool = False
    weight: float = 1.0
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class BackwardResult:
    """The gradients of inputs by name, not to be written to, and the contributions since the last step."""

    input_gradients: Mapping[str, Array]
    contributions: int

    @property
    def nbytes(self) -> int:
        """The bytes that keeping it costs."""
        return OVERHEAD_BYTES + held_bytes(self.input_gradients.values())


class NonFinitePolicy(Enum):
    """What a step does about gradients that are NaN or infinite."""

    REJECT = auto()
    SKIP = auto()
    ALLOW = auto()


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How to step; None stands for the optimizer's learning rate, and for any step.

    `after_contributions` is how many must have been accumulated first, `digest` asks for that of the state after it.
    """

    learning_rate: float | None = None
    expected_step: int | None = None
    non_finite: NonFinitePolicy = NonFinitePolicy.REJECT
    normalization: Normalization = Normalization.SUM
    after_contributions: int = 0
    digest: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did; see StepResult in the contract."""

    step: int
    gradient_norm: float
    learning_rate: float
    contributions: int
    skipped: bool = False
    non_finite_parameter: str = ""
    digest: str = ""
    loss_scale: float | None = None
    nbytes: int = OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class TrainCall:
    """Inputs by name, the outputs to return, the weight of the contribution, how to step, and in how many parts.

    `data_parallel` is 0 for as many as the session has its batches in. `staged` is filled with inputs that are on their
    way to a device before the call has its turn; they mean the same.
    """

    inputs: Mapping[str, Array]
    outputs: Sequence[str] = ()
    weight: float = 1.0
    options: StepOptions = field(default_factory=StepOptions)
    chunked: bool = False
    data_parallel: int = 0
    staged: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of the step; the loss and outputs of before it."""

    result: StepResult
    loss: float
    outputs: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        """The bytes that keeping it costs."""
        return OVERHEAD_BYTES + held_bytes(self.outputs.values())


@dataclass(frozen=True, slots=True)
class SetCall:
    """New values of parameters by name."""

    values: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ZeroCall:
    """Asks to discard the accumulated gradients."""


@dataclass(frozen=True, slots=True)
class LeaseCall:
    """Gives a writer lease, the `number`-th of the session, to a holder who is heard of at least every so many seconds.

    An empty holder gives the lease back. See AttachSession in the contract.
    """

    number: int
    holder: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BranchCall:
    """The session is a branch: without the passes, requests and lease of the one that it branched from."""


@dataclass(frozen=True, slots=True)
class CheckCall:
    """Inputs by name, the parameters whose gradients to check (none: all), how many elements of each, and a seed."""

    inputs: Mapping[str, Array]
    names: Sequence[str] = ()
    max_elements: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DescribeCall:
    """What a session is described for: inputs by name, shapes of others, and how many passes are measured on them."""

    inputs: Mapping[str, Array] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    passes: int = 0


@dataclass(frozen=True, slots=True)
class CountResult:
    """A number: the step after SetParameters, the contributions that ZeroGradients discarded."""

    count: int
    nbytes: int = OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """The lease that AttachSession gave; see LeaseCall."""

    number: int
    holder: str
    seconds: float
    nbytes: int = OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint on disk: its name (empty for one that the server made by itself), and the state that it holds.

    `created` is in seconds since 1970; `size` is that of its file in bytes.
    """

    name: str
    step: int
    digest: str
    created: float
    size: int
    nbytes: int = OVERHEAD_BYTES


Answered = ForwardResult | BackwardResult | StepResult | TrainResult | CountResult | LeaseResult | CheckpointInfo
"""What a mutation of a session answers, and what is remembered of it."""


def held_bytes(arrays: Iterable[Array]) -> int:
    """Returns the bytes of the buffers that the arrays keep alive, each once: a view keeps all of its base."""
    buffers = {id(base): base.nbytes for base in map(owner, arrays)}
    return sum(buffers.values())
