"""Makes data of what the server says of sessions and steps."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from backwire._info import (
    CheckpointInfo,
    Durability,
    Executor,
    InputInfo,
    LeaseInfo,
    ParameterInfo,
    Precision,
    SessionInfo,
    SessionLimits,
    StepResult,
)
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.v1 import graph_pb2

_EXECUTORS: dict[int, Executor] = {service_pb2.EXECUTOR_NUMPY: "numpy", service_pb2.EXECUTOR_JAX: "jax"}
_PRECISIONS: dict[int, Precision] = {
    service_pb2.PRECISION_BFLOAT16: "bfloat16",
    service_pb2.PRECISION_FLOAT16: "float16",
}
_LEVELS: dict[int, Durability] = {
    service_pb2.DURABILITY_UNSPECIFIED: "memory",  # of a server that knows no other
    service_pb2.DURABILITY_MEMORY: "memory",
    service_pb2.DURABILITY_JOURNAL: "journal",
    service_pb2.DURABILITY_FSYNC: "fsync",
}


class SessionReader:
    """Makes data of what a session is, again and again: parts that are as they were before are taken over.

    To compare them takes a fraction of the time, and most never change. May be used by several threads at once.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[service_pb2.Session, SessionInfo] | None = None

    def __call__(self, message: service_pb2.Session) -> SessionInfo:
        """Returns the message as data."""
        before = self._last
        if before is None:
            found = session_info(message)
        else:
            last, known = before
            found = _session_info(
                message,
                created=known.created if message.create_time == last.create_time else _moment(message.create_time),
                inputs=known.inputs if message.inputs == last.inputs else _inputs(message),
                parameters=known.parameters if message.parameters == last.parameters else _parameters(message),
                limits=known.limits if message.limits == last.limits else _limits(message.limits),
            )
        self._last = message, found
        return found


def session_info(message: service_pb2.Session) -> SessionInfo:
    """Returns the message as data."""
    return _session_info(
        message,
        created=_moment(message.create_time),
        inputs=_inputs(message),
        parameters=_parameters(message),
        limits=_limits(message.limits),
    )


def _session_info(
    message: service_pb2.Session,
    *,
    created: datetime,
    inputs: tuple[InputInfo, ...],
    parameters: tuple[ParameterInfo, ...],
    limits: SessionLimits,
) -> SessionInfo:
    return SessionInfo(
        id=message.session_id,
        step=message.step,
        contributions=message.contributions,
        created=created,
        last_used=_moment(message.last_use_time),
        inputs=inputs,
        parameters=parameters,
        outputs=tuple(message.outputs),
        has_loss=message.has_loss,
        optimizer=message.optimizer if message.HasField("optimizer") else None,
        seed=message.seed,
        limits=limits,
        forward_ids=tuple(message.forward_ids),
        address=message.address,
        durability=_LEVELS.get(message.durability, "memory"),
        lease=_lease(message.lease) if message.HasField("lease") else None,
        max_staleness=message.max_staleness if message.HasField("max_staleness") else None,
        executor=_EXECUTORS.get(message.executor, "numpy"),
        data_parallel=max(1, message.data_parallel),
        precision=_PRECISIONS.get(message.precision, "float32"),
    )


def checkpoint_info(message: service_pb2.Checkpoint) -> CheckpointInfo:
    """Returns the message as data."""
    created = _moment(message.create_time)
    return CheckpointInfo(message.name, message.step, message.digest, created, message.size_bytes)


def step_fields(message: service_pb2.StepResult) -> dict[str, Any]:
    """Returns the fields of a StepResult by name."""
    fields = {name: getattr(message, name) for name in StepResult.__dataclass_fields__}
    return fields if message.HasField("loss_scale") else {**fields, "loss_scale": None}


def _inputs(message: service_pb2.Session) -> tuple[InputInfo, ...]:
    return tuple([InputInfo(each.name, tensors.dtype_of(each.dtype), _dims(each.shape)) for each in message.inputs])


def _parameters(message: service_pb2.Session) -> tuple[ParameterInfo, ...]:
    return tuple(
        [
            ParameterInfo(each.name, tensors.dtype_of(each.dtype), tuple(each.shape), each.frozen)
            for each in message.parameters
        ]
    )


def _dims(dims: Sequence[graph_pb2.Dimension]) -> tuple[int | str, ...]:
    return tuple(dim.symbol if dim.WhichOneof("kind") == "symbol" else dim.size for dim in dims)


def _moment(message: Any) -> datetime:
    return message.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


def _lease(message: service_pb2.Lease) -> LeaseInfo:
    return LeaseInfo(message.number, message.holder, message.timeout.ToTimedelta())


def _limits(message: service_pb2.SessionLimits) -> SessionLimits:
    return SessionLimits(
        max_message_bytes=message.max_message_bytes,
        max_passes=message.max_passes,
        max_pass_bytes=message.max_pass_bytes,
        max_pipeline_bytes=message.max_pipeline_bytes,
        pass_ttl=message.pass_ttl.ToTimedelta(),
        idle_ttl=message.idle_ttl.ToTimedelta() if message.HasField("idle_ttl") else None,
    )
