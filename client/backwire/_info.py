"""What the server says of sessions and steps, as plain immutable data."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from backwire._arrays import Array, DType
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.v1 import optimizer_pb2

Durability = Literal["memory", "journal", "fsync"]
Executor = Literal["numpy", "jax"]
Precision = Literal["float32", "bfloat16", "float16"]

DURABILITIES: dict[str, service_pb2.Durability.ValueType] = {
    "memory": service_pb2.DURABILITY_MEMORY,
    "journal": service_pb2.DURABILITY_JOURNAL,
    "fsync": service_pb2.DURABILITY_FSYNC,
}
EXECUTORS: dict[str, service_pb2.Executor.ValueType] = {
    "numpy": service_pb2.EXECUTOR_NUMPY,
    "jax": service_pb2.EXECUTOR_JAX,
}
PRECISIONS: dict[str, service_pb2.Precision.ValueType] = {
    "float32": service_pb2.PRECISION_FLOAT32,
    "bfloat16": service_pb2.PRECISION_BFLOAT16,
    "float16": service_pb2.PRECISION_FLOAT16,
}


@dataclass(frozen=True, slots=True)
class InputInfo:
    """An input of a graph; texts in `shape` are sizes that each Forward chooses."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter of a graph, without its value; Step never changes `frozen` ones."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    frozen: bool


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits that hold for a session.

    Attributes:
        max_message_bytes: The largest message that the server accepts and sends.
        max_passes: The most passes kept; when another comes, the oldest expires.
        max_pass_bytes: The most bytes that passes hold together, and that the tensors of one request or answer hold.
        max_pipeline_bytes: The bytes of requests that the server holds unanswered before it stops reading a pipeline.
        pass_ttl: How long a pass is kept.
        idle_ttl: How long the session is kept after its last use; None means for ever.
    """

    max_message_bytes: int
    max_passes: int
    max_pass_bytes: int
    max_pipeline_bytes: int
    pass_ttl: timedelta
    idle_ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """The writer lease of a session: its number, who holds it, and how long they may be silent before another may."""

    number: int
    holder: str
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A state of a session on the server's disk.

    Attributes:
        name: The name that it was saved under; empty for one that the server made by itself.
        step: How many steps were applied.
        digest: SHA-256 of the state, in hexadecimal; see `Session.digest`.
        created: When it was made, in UTC.
        nbytes: The bytes of its files.
    """

    name: str
    step: int
    digest: str
    created: datetime
    nbytes: int


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it was when the server was asked.

    Attributes:
        id: The id, for `Client.session`.
        step: How many steps were applied.
        contributions: How many Backward contributions wait for the next Step.
        created: When it was created, in UTC.
        last_used: When it was last used, in UTC.
        inputs: The graph's inputs.
        parameters: The graph's parameters, in its order.
        outputs: The names of the graph's outputs, sorted.
        has_loss: Whether the graph has a loss.
        optimizer: The message `backwire_api.v1.Optimizer` with defaults filled in, or None.
        seed: What parameters and Dropout masks are drawn from.
        limits: The limits that hold for its calls.
        forward_ids: The names of the live passes, oldest first.
        address: Where the process that keeps the session can be called directly, which the client does by itself;
            empty when the server is a single process.
        durability: What an acknowledged mutation outlives: nothing, the server's process, or its machine.
        lease: The writer lease; None when everybody may write.
        max_staleness: How many steps may be between a pass and its Backward; None for any number.
        executor: What computes it.
        data_parallel: In how many parts batches are computed in training.
        precision: What products of its float32 values are computed in.
    """

    id: str
    step: int
    contributions: int
    created: datetime
    last_used: datetime
    inputs: tuple[InputInfo, ...]
    parameters: tuple[ParameterInfo, ...]
    outputs: tuple[str, ...]
    has_loss: bool
    optimizer: optimizer_pb2.Optimizer | None
    seed: int
    limits: SessionLimits
    forward_ids: tuple[str, ...]
    address: str = ""
    durability: Durability = "memory"
    lease: LeaseInfo | None = None
    max_staleness: int | None = None
    executor: Executor = "numpy"
    data_parallel: int = 1
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a Step did.

    Attributes:
        step: How many steps the session has applied, this one included.
        gradient_norm: The global L2 norm of the gradients, before clipping.
        learning_rate: The learning rate that was used.
        contributions: How many Backward contributions took part.
        skipped: True when the gradients were discarded because some were not finite.
        non_finite_parameter: The first parameter with a gradient that is NaN or infinite, or an empty text.
        digest: The digest of the state after the step where it was asked for, or an empty text; see `Session.digest`.
        loss_scale: What the loss is multiplied by from now on while gradients are computed, where products are of
            float16; None elsewhere.
    """

    step: int
    gradient_norm: float
    learning_rate: float
    contributions: int
    skipped: bool
    non_finite_parameter: str
    digest: str
    loss_scale: float | None


@dataclass(frozen=True, slots=True)
class TrainStepResult(StepResult):
    """What a TrainStep did: the step's outcome, and the loss and outputs before it.

    Attributes:
        loss: The loss before the step.
        outputs: The outputs that were asked for, as read-only arrays.
    """

    loss: float
    outputs: dict[str, Array]
