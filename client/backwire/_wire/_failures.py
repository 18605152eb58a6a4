"""Turns a failed call into an exception: two tables, by reason and by status code, and one translator."""

from typing import Any

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from backwire._errors import (
    BackwireError,
    Code,
    DTypeError,
    GraphError,
    InvalidExportError,
    InvalidRequestError,
    MissingInputError,
    OptimizerError,
    RequestIdReusedError,
    ShapeError,
    TensorError,
    UnknownNameError,
)
from backwire._errors_service import (
    AuthenticationError,
    CancelledError,
    DeadlineExceededError,
    DiskQuotaExceededError,
    OverloadedError,
    PermissionDeniedError,
    RecoveringError,
    ResourceExhaustedError,
    ServerError,
    SessionQuarantinedError,
    StorageFailedError,
    TooLargeError,
    UnavailableError,
    UnsupportedCallError,
)
from backwire._errors_session import (
    AbortedError,
    AlreadyExistsError,
    CheckpointNotFoundError,
    DependencyFailedError,
    ExecutorUnavailableError,
    FailedPreconditionError,
    LeaseHeldError,
    NoGradientsError,
    NoLossError,
    NonFiniteGradientError,
    NoOptimizerError,
    NotDurableError,
    NotFoundError,
    PassExpiredError,
    PassNotFoundError,
    ResultNotRetainedError,
    SessionLostError,
    SessionNotFoundError,
    StalePassError,
    StepMismatchError,
    WriterFencedError,
)
from backwire._version import __version__
from backwire._wire._remedies import remedy_for
from backwire_api.reasons import DOMAIN, Reason

STATUS_DETAILS = "grpc-status-details-bin"
"""The metadata in which a server tells the reason of a failure, which nothing else sends."""

BY_CODE: dict[Code, type[BackwireError]] = {
    Code.OK: ServerError,
    Code.CANCELLED: CancelledError,
    Code.UNKNOWN: ServerError,
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.DEADLINE_EXCEEDED: DeadlineExceededError,
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: AlreadyExistsError,
    Code.PERMISSION_DENIED: PermissionDeniedError,
    Code.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    Code.FAILED_PRECONDITION: FailedPreconditionError,
    Code.ABORTED: AbortedError,
    Code.OUT_OF_RANGE: InvalidRequestError,
    Code.UNIMPLEMENTED: UnsupportedCallError,
    Code.INTERNAL: ServerError,
    Code.UNAVAILABLE: UnavailableError,
    Code.DATA_LOSS: ServerError,
    Code.UNAUTHENTICATED: AuthenticationError,
}

_CODES: dict[int, Code] = {code.value[0]: code for code in Code}

BY_REASON: dict[Reason, type[BackwireError]] = {
    Reason.SESSION_NOT_FOUND: SessionNotFoundError,
    Reason.SESSION_LOST: SessionLostError,
    Reason.PASS_NOT_FOUND: PassNotFoundError,
    Reason.CHECKPOINT_NOT_FOUND: CheckpointNotFoundError,
    Reason.PASS_EXISTS: AlreadyExistsError,
    Reason.INVALID_GRAPH: GraphError,
    Reason.CYCLIC_GRAPH: GraphError,
    Reason.UNKNOWN_OP: GraphError,
    Reason.UNSUPPORTED_OPSET: GraphError,
    Reason.INVALID_ATTRIBUTE: GraphError,
    Reason.NOT_DIFFERENTIABLE: GraphError,
    Reason.NOT_SPLITTABLE: GraphError,
    Reason.INVALID_TENSOR: TensorError,
    Reason.SHAPE_MISMATCH: ShapeError,
    Reason.DTYPE_MISMATCH: DTypeError,
    Reason.MISSING_INPUT: MissingInputError,
    Reason.UNKNOWN_INPUT: UnknownNameError,
    Reason.UNKNOWN_OUTPUT: UnknownNameError,
    Reason.UNKNOWN_PARAMETER: UnknownNameError,
    Reason.INVALID_VALUE: TensorError,
    Reason.INVALID_OPTIMIZER: OptimizerError,
    Reason.INVALID_ARGUMENT: InvalidRequestError,
    Reason.INVALID_PAGE_TOKEN: InvalidRequestError,
    Reason.REQUEST_ID_REUSED: RequestIdReusedError,
    Reason.INVALID_EXPORT: InvalidExportError,
    Reason.PASS_EXPIRED: PassExpiredError,
    Reason.NO_GRADIENTS: NoGradientsError,
    Reason.NO_OPTIMIZER: NoOptimizerError,
    Reason.NO_LOSS: NoLossError,
    Reason.NON_FINITE_GRADIENT: NonFiniteGradientError,
    Reason.RESULT_NOT_RETAINED: ResultNotRetainedError,
    Reason.NOT_DURABLE: NotDurableError,
    Reason.EXECUTOR_UNAVAILABLE: ExecutorUnavailableError,
    Reason.DEPENDENCY_FAILED: DependencyFailedError,
    Reason.STEP_MISMATCH: StepMismatchError,
    Reason.STALE_PASS: StalePassError,
    Reason.WRITER_FENCED: WriterFencedError,
    Reason.LEASE_HELD: LeaseHeldError,
    Reason.GRAPH_TOO_LARGE: TooLargeError,
    Reason.PASS_TOO_LARGE: TooLargeError,
    Reason.MESSAGE_TOO_LARGE: TooLargeError,
    Reason.CALL_TOO_LARGE: TooLargeError,
    Reason.TOO_MANY_SESSIONS: ResourceExhaustedError,
    Reason.OUT_OF_MEMORY: ResourceExhaustedError,
    Reason.DISK_QUOTA_EXCEEDED: DiskQuotaExceededError,
    Reason.OVERLOADED: OverloadedError,
    Reason.UNAUTHENTICATED: AuthenticationError,
    Reason.PERMISSION_DENIED: PermissionDeniedError,
    Reason.SHUTTING_DOWN: UnavailableError,
    Reason.NO_WORKER: UnavailableError,
    Reason.RECOVERING: RecoveringError,
    Reason.WRONG_REPLICA: UnavailableError,
    Reason.STORAGE_FAILED: StorageFailedError,
    Reason.SESSION_QUARANTINED: SessionQuarantinedError,
    Reason.CANCELLED: CancelledError,
    Reason.DEADLINE_EXCEEDED: DeadlineExceededError,
    Reason.INTERNAL: ServerError,
}


def from_rpc_error(error: Any, request_id: str | None) -> BackwireError:
    """Returns the exception for a failed call: by its reason where the client knows it, else by its status code.

    A call that the network or a proxy broke off is UNAVAILABLE, whatever status gRPC made of that.
    """
    status, was_reset = status_of(error), _was_reset(error)
    if was_reset and status.details:
        return from_status(status, request_id)
    code: Code = Code.UNAVAILABLE if was_reset else error.code()
    return _translated(code, error.details(), status, request_id)


def from_status(status: status_pb2.Status, request_id: str | None) -> BackwireError:
    """Returns the exception for a status that came in an answer, as `from_rpc_error` does for that of a call."""
    code = _CODES.get(status.code, Code.UNKNOWN)
    return _translated(code, status.message, status, request_id)


def unsupported(error: BackwireError, server_version: str) -> BackwireError:
    """Returns the error of a call that the server does not have, which tells both versions; empty for one unknown."""
    here = f"does not have this call of backwire {__version__}"
    message = (
        f"the server is of version {server_version} and {here}; upgrade it, or use a client of its version"
        if server_version
        else f"the server {here}: it is older, or no Backwire server; upgrade it, or check the target"
    )
    return UnsupportedCallError(f"{message} ({error})", code=error.code, request_id=error.request_id)


def failed_id(status: status_pb2.Status) -> int:
    """Returns the id of the request because of which another failed; 0 when that was not so."""
    info = ErrorInfo()
    for detail in status.details:
        if unpacked(detail, info) and info.metadata.get("failed_id", "").isdecimal():
            return int(info.metadata["failed_id"])
    return 0


def _translated(code: Code, message: str | None, status: status_pb2.Status, request_id: str | None) -> BackwireError:
    details = _details(status)
    reason = _known(details.pop("reason", None))
    kind = BY_REASON[reason] if isinstance(reason, Reason) else BY_CODE[code]
    message = message or f"the call failed with {code.name} and no explanation"
    if code is Code.UNAVAILABLE and reason is None:
        message = f"{message.rstrip('.')}; {remedy_for(message)}"
    if code is Code.DEADLINE_EXCEEDED and reason is None:
        message = f"{message.rstrip('.')}; give it more time by timeout="
    if request_id and code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.CANCELLED):
        message = (
            f"{message.rstrip('.')}; the call may or may not have been applied: repeating it with "
            f"request_id={request_id!r} is safe and applies it once"
        )
    return kind(message, reason=reason, code=code, request_id=request_id, **details)


def _was_reset(error: Any) -> bool:
    """Tells whether a call may have been reset on its way, be it behind a refusal: this client cancels none."""
    return error.code() is Code.CANCELLED or "RST_STREAM" in (error.details() or "")


def _known(reason: str | None) -> str | None:
    return Reason(reason) if reason is not None and reason in Reason.__members__ else reason


def _details(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for detail in status.details:
        info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if unpacked(detail, info) and info.domain == DOMAIN:
            found["reason"] = info.reason
        elif unpacked(detail, request) and request.field_violations:
            found["field"] = request.field_violations[0].field
        elif unpacked(detail, retry):
            found["retry_after"] = retry.retry_delay.ToNanoseconds() / 1e9
    return found


def status_of(error: Any) -> status_pb2.Status:
    """Returns what a server told of a failed call, an empty status for nothing.

    The details count, whatever the status code: a proxy may break a call off behind a refusal that came whole, as
    HAProxy does with a stream whose client has more to send, and gRPC takes its code for that of the call.
    """
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # whatever a proxy put there: the status code alone must do
                break
    return status_pb2.Status()


def unpacked(detail: any_pb2.Any, message: Message) -> bool:
    """Has a message be what a detail of a status is; tells whether it is one of that kind, and whole."""
    try:
        return detail.Unpack(message)
    except DecodeError:
        return False
