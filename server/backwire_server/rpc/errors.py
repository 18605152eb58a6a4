"""Which status and reason each error of the domain has on the wire, and how it is told there."""

import logging
from collections.abc import Iterator

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from backwire_api.reasons import DOMAIN, Reason
from backwire_api.tensors import TensorError
from backwire_server.engine import errors as engine
from backwire_server.optim import OptimizerError
from backwire_server.sessions import errors as sessions

_LOG = logging.getLogger("backwire.errors")

Code = grpc.StatusCode


class Refused(Exception):
    """A call was passed on to another server, which refused it.

    Attributes:
        status: What it told.
        reason: Why; INTERNAL where that is none of the contract.
    """

    def __init__(self, status: status_pb2.Status, reason: Reason) -> None:
        super().__init__(status.message)
        self.status = status
        self.reason = reason

    @property
    def undone(self) -> bool:
        """Whether nothing at all was done for the call, since its session is elsewhere."""
        info = error_details_pb2.ErrorInfo()
        return self.reason is Reason.WRONG_REPLICA and any(
            detail.Unpack(info) and UNDONE_KEY in info.metadata for detail in self.status.details
        )


TABLE: dict[type[BaseException], tuple[grpc.StatusCode, Reason]] = {
    engine.EngineError: (Code.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT),
    engine.GraphError: (Code.INVALID_ARGUMENT, Reason.INVALID_GRAPH),
    engine.CyclicGraph: (Code.INVALID_ARGUMENT, Reason.CYCLIC_GRAPH),
    engine.UnknownOp: (Code.INVALID_ARGUMENT, Reason.UNKNOWN_OP),
    engine.InvalidAttribute: (Code.INVALID_ARGUMENT, Reason.INVALID_ATTRIBUTE),
    engine.NotTraceable: (Code.INVALID_ARGUMENT, Reason.UNKNOWN_OP),
    engine.NotDifferentiable: (Code.INVALID_ARGUMENT, Reason.NOT_DIFFERENTIABLE),
    engine.NotSplittable: (Code.INVALID_ARGUMENT, Reason.NOT_SPLITTABLE),
    engine.ShapeMismatch: (Code.INVALID_ARGUMENT, Reason.SHAPE_MISMATCH),
    engine.DtypeMismatch: (Code.INVALID_ARGUMENT, Reason.DTYPE_MISMATCH),
    engine.MissingInput: (Code.INVALID_ARGUMENT, Reason.MISSING_INPUT),
    engine.UnknownInput: (Code.INVALID_ARGUMENT, Reason.UNKNOWN_INPUT),
    engine.UnknownOutput: (Code.INVALID_ARGUMENT, Reason.UNKNOWN_OUTPUT),
    engine.TooCostly: (Code.RESOURCE_EXHAUSTED, Reason.GRAPH_TOO_LARGE),
    engine.InvalidValue: (Code.INVALID_ARGUMENT, Reason.INVALID_VALUE),
    OptimizerError: (Code.INVALID_ARGUMENT, Reason.INVALID_OPTIMIZER),
    TensorError: (Code.INVALID_ARGUMENT, Reason.INVALID_TENSOR),
    sessions.InvalidRequest: (Code.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT),
    sessions.InvalidTensor: (Code.INVALID_ARGUMENT, Reason.INVALID_TENSOR),
    sessions.UnsupportedOpset: (Code.INVALID_ARGUMENT, Reason.UNSUPPORTED_OPSET),
    sessions.UnknownParameter: (Code.INVALID_ARGUMENT, Reason.UNKNOWN_PARAMETER),
    sessions.InvalidPageToken: (Code.INVALID_ARGUMENT, Reason.INVALID_PAGE_TOKEN),
    sessions.RequestIdReused: (Code.INVALID_ARGUMENT, Reason.REQUEST_ID_REUSED),
    sessions.InvalidExport: (Code.INVALID_ARGUMENT, Reason.INVALID_EXPORT),
    sessions.SessionNotFound: (Code.NOT_FOUND, Reason.SESSION_NOT_FOUND),
    sessions.SessionLost: (Code.NOT_FOUND, Reason.SESSION_LOST),
    sessions.PassNotFound: (Code.NOT_FOUND, Reason.PASS_NOT_FOUND),
    sessions.CheckpointNotFound: (Code.NOT_FOUND, Reason.CHECKPOINT_NOT_FOUND),
    sessions.PassExists: (Code.ALREADY_EXISTS, Reason.PASS_EXISTS),
    sessions.PassExpired: (Code.FAILED_PRECONDITION, Reason.PASS_EXPIRED),
    sessions.NoGradients: (Code.FAILED_PRECONDITION, Reason.NO_GRADIENTS),
    sessions.NoOptimizer: (Code.FAILED_PRECONDITION, Reason.NO_OPTIMIZER),
    sessions.NoLoss: (Code.FAILED_PRECONDITION, Reason.NO_LOSS),
    sessions.NonFiniteGradient: (Code.FAILED_PRECONDITION, Reason.NON_FINITE_GRADIENT),
    sessions.ResultNotRetained: (Code.FAILED_PRECONDITION, Reason.RESULT_NOT_RETAINED),
    sessions.NotDurable: (Code.FAILED_PRECONDITION, Reason.NOT_DURABLE),
    sessions.ExecutorUnavailable: (Code.FAILED_PRECONDITION, Reason.EXECUTOR_UNAVAILABLE),
    sessions.DependencyFailed: (Code.FAILED_PRECONDITION, Reason.DEPENDENCY_FAILED),
    sessions.StepMismatch: (Code.ABORTED, Reason.STEP_MISMATCH),
    sessions.StalePass: (Code.ABORTED, Reason.STALE_PASS),
    sessions.WriterFenced: (Code.ABORTED, Reason.WRITER_FENCED),
    sessions.LeaseHeld: (Code.ABORTED, Reason.LEASE_HELD),
    sessions.GraphTooLarge: (Code.RESOURCE_EXHAUSTED, Reason.GRAPH_TOO_LARGE),
    sessions.PassTooLarge: (Code.RESOURCE_EXHAUSTED, Reason.PASS_TOO_LARGE),
    sessions.MessageTooLarge: (Code.RESOURCE_EXHAUSTED, Reason.MESSAGE_TOO_LARGE),
    sessions.CallTooLarge: (Code.RESOURCE_EXHAUSTED, Reason.CALL_TOO_LARGE),
    sessions.TooManySessions: (Code.RESOURCE_EXHAUSTED, Reason.TOO_MANY_SESSIONS),
    sessions.OutOfMemory: (Code.RESOURCE_EXHAUSTED, Reason.OUT_OF_MEMORY),
    sessions.DiskQuotaExceeded: (Code.RESOURCE_EXHAUSTED, Reason.DISK_QUOTA_EXCEEDED),
    sessions.Overloaded: (Code.RESOURCE_EXHAUSTED, Reason.OVERLOADED),
    sessions.Unauthenticated: (Code.UNAUTHENTICATED, Reason.UNAUTHENTICATED),
    sessions.PermissionDenied: (Code.PERMISSION_DENIED, Reason.PERMISSION_DENIED),
    sessions.ShuttingDown: (Code.UNAVAILABLE, Reason.SHUTTING_DOWN),
    sessions.NoWorker: (Code.UNAVAILABLE, Reason.NO_WORKER),
    sessions.Recovering: (Code.UNAVAILABLE, Reason.RECOVERING),
    sessions.WrongReplica: (Code.UNAVAILABLE, Reason.WRONG_REPLICA),
    sessions.StorageFailed: (Code.UNAVAILABLE, Reason.STORAGE_FAILED),
    sessions.SessionQuarantined: (Code.DATA_LOSS, Reason.SESSION_QUARANTINED),
    sessions.Cancelled: (Code.CANCELLED, Reason.CANCELLED),
    sessions.DeadlineExceeded: (Code.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
}
"""Every error of the domain that a call may end with. Only classes that are raised themselves are listed."""

INTERNAL_MESSAGE = "the server failed in a way that is not the caller's fault; its log has the details"
MEMORY_MESSAGE = "the server has not enough memory for this; use a smaller batch or model, or give the server more"

UNDONE_KEY = "undone"
"""In what is told of WRONG_REPLICA, by one server to another: nothing at all was done for the call."""

MESSAGE_BYTES = 1_000
FIELD_BYTES = 300  # together well within the 8 KiB of metadata that gRPC clients accept, in any script


def status_of(error: Exception) -> tuple[status_pb2.Status, Reason]:
    """Returns the status that tells the client of an error; logs one that nobody foresaw, which is told as INTERNAL."""
    if isinstance(error, Refused):
        return error.status, error.reason
    if isinstance(error, MemoryError):
        error = sessions.OutOfMemory(MEMORY_MESSAGE)
    found = TABLE.get(type(error))
    if found is None:
        _LOG.error("a call failed unexpectedly", exc_info=error)
        found, error = (Code.INTERNAL, Reason.INTERNAL), sessions.SessionError(INTERNAL_MESSAGE)
    code, reason = found
    message = _clipped(str(error), MESSAGE_BYTES)
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(error, sessions.DependencyFailed):
        info.metadata["failed_id"] = str(error.failed_id)
    if isinstance(error, sessions.WrongReplica):
        info.metadata.update({key: told for key in ("owner", "gone") if (told := getattr(error, key))})
        if error.undone:
            info.metadata[UNDONE_KEY] = "1"
    for detail in (info, *_details(error, message)):
        status.details.add().Pack(detail)
    return status, reason


def _details(error: Exception, message: str) -> Iterator[Message]:
    if field := getattr(error, "field", ""):
        violation = error_details_pb2.BadRequest.FieldViolation(field=_clipped(field, FIELD_BYTES), description=message)
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if (seconds := getattr(error, "retry_after", None)) is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(seconds * 1e9))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if quota := getattr(error, "quota", ""):
        limit = error_details_pb2.QuotaFailure.Violation(subject=quota, description=message)
        yield error_details_pb2.QuotaFailure(violations=[limit])


def _clipped(text: str, most: int) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "..."
