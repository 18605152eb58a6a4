"""Everything that can go wrong, as one family of exceptions.

    BackwireError
    ├── InvalidRequestError (ValueError)     the call says something that cannot be done
    │   ├── GraphError                       the graph is malformed, or has no gradient where one is asked for
    │   ├── ShapeError                       shapes do not fit together
    │   ├── DTypeError                       element types do not fit together
    │   ├── TensorError                      a tensor is malformed, or an element is outside what an op accepts
    │   ├── UnknownNameError                 no input, output or parameter of this name
    │   ├── MissingInputError                an input that the result depends on was not given
    │   ├── OptimizerError                   a figure of the optimizer is outside its range
    │   ├── RequestIdReusedError             the request_id belongs to another request
    │   └── InvalidExportError               the file is no exported session, or it is damaged
    ├── NotFoundError (LookupError)
    │   ├── SessionNotFoundError
    │   │   └── SessionLostError             the process that kept the session ended
    │   ├── PassNotFoundError
    │   └── CheckpointNotFoundError          no checkpoint of this name, or none that leads to this step
    ├── AlreadyExistsError                   the forward_id is that of a pass that is alive
    ├── FailedPreconditionError              the call is right, but the session is not in the state for it
    │   ├── PassExpiredError
    │   ├── NoGradientsError
    │   ├── NoOptimizerError
    │   ├── NoLossError
    │   ├── NonFiniteGradientError
    │   ├── NotDurableError                  the session is kept in memory alone
    │   ├── ExecutorUnavailableError         the server cannot compute by that executor
    │   ├── ResultNotRetainedError           the request was applied before, but its answer is gone
    │   └── DependencyFailedError            an earlier request of the pipeline failed, and this depends on it
    ├── AbortedError
    │   ├── StepMismatchError                the session is not at expected_step
    │   ├── StalePassError                   the session has stepped on too far since the pass was made
    │   ├── WriterFencedError                another client has the writer lease
    │   └── LeaseHeldError                   another client has the writer lease, so it cannot be had
    ├── ResourceExhaustedError               a limit of the server was hit
    │   ├── OverloadedError                  for now: call again after retry_after
    │   ├── TooLargeError                    a graph, pass or message is larger than the server takes
    │   └── DiskQuotaExceededError           the server's sessions hold as many bytes on disk as they may
    ├── AuthenticationError                  the token is missing or wrong
    ├── PermissionDeniedError                the token does not allow this
    ├── UnavailableError (ConnectionError)   the server cannot be reached, or is shutting down
    │   ├── RecoveringError                  the session is being made again from its files
    │   ├── StorageFailedError               the server's disk could not be written or read
    │   └── ServerStartError                 the embedded server did not come up
    ├── DeadlineExceededError (TimeoutError)
    ├── CancelledError
    ├── ClientClosedError                    the client was closed here
    ├── MissingExtraError (ImportError)      a package is not installed that only some calls need
    └── ServerError                          the server failed, or answered what no server should
        ├── SessionQuarantinedError          the session's files are damaged; others are not concerned
        └── UnsupportedCallError             the server does not have this call: it is older than the client

A mistake that the client can see raises the same class as one that the server finds. `except` clauses should name
classes; `reason` tells finer.
"""

from typing import ClassVar

import grpc

from backwire_api.reasons import Reason

Code = grpc.StatusCode


class BackwireError(Exception):
    """The root of all errors that this package raises on purpose.

    Attributes:
        reason: The machine-readable reason, a `Reason` where the client knows it, or None.
        code: The gRPC status code; the one that the server would use when the client found the mistake.
        field: The path of the offending field, such as `graph.nodes[3]` or `inputs[x]`, or None.
        retry_after: The seconds after which the server expects to accept the call, or None.
        request_id: The id of the mutation that failed, to repeat it with, or None for calls that change nothing.
    """

    _code: ClassVar[Code | None] = None
    _reason: ClassVar[Reason | None] = None

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        code: Code | None = None,
        field: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason or self._reason
        self.code = code or self._code
        self.field = field
        self.retry_after = retry_after
        self.request_id = request_id


class InvalidRequestError(BackwireError, ValueError):
    """The call says something that cannot be done; repeating it unchanged is pointless."""

    _code, _reason = Code.INVALID_ARGUMENT, Reason.INVALID_ARGUMENT


class GraphError(InvalidRequestError):
    """The graph is malformed: names defined twice or nowhere, a cycle, an unknown op, a missing gradient."""

    _reason = Reason.INVALID_GRAPH


class ShapeError(InvalidRequestError):
    """Shapes do not fit together."""

    _reason = Reason.SHAPE_MISMATCH


class DTypeError(InvalidRequestError):
    """Element types do not fit together, or a conversion would lose what the numbers mean."""

    _reason = Reason.DTYPE_MISMATCH


class TensorError(InvalidRequestError):
    """A tensor is malformed, or has an element outside what an op accepts."""

    _reason = Reason.INVALID_VALUE


class UnknownNameError(InvalidRequestError):
    """The graph has no input, output or parameter of this name."""

    _reason = Reason.UNKNOWN_INPUT


class MissingInputError(InvalidRequestError):
    """An input that the requested values depend on was not given."""

    _reason = Reason.MISSING_INPUT


class OptimizerError(InvalidRequestError):
    """A figure of the optimizer is outside its range."""

    _reason = Reason.INVALID_OPTIMIZER


class RequestIdReusedError(InvalidRequestError):
    """The request_id was used for another request; draw a new one."""

    _reason = Reason.REQUEST_ID_REUSED


class InvalidExportError(InvalidRequestError):
    """The file is not what `Session.export` writes, or it is damaged."""

    _reason = Reason.INVALID_EXPORT


class NotFoundError(BackwireError, LookupError):
    """What the call names does not exist."""

    _code = Code.NOT_FOUND


class SessionNotFoundError(NotFoundError):
    """There is no such session: it was deleted, or the server restarted."""

    _reason = Reason.SESSION_NOT_FOUND


class SessionLostError(SessionNotFoundError):
    """The server's process that kept the session ended unexpectedly, or its device failed; create the session again.

    What was acknowledged is lost, and repeating the call is pointless.
    """

    _reason = Reason.SESSION_LOST


class PassNotFoundError(NotFoundError):
    """There never was a pass of that name, or it is so long gone that the server forgot; run Forward first.

    A pass that an earlier Backward used up raises PassExpiredError instead, as long as the server remembers it: the
    last 1,024 passes of a session that went.
    """

    _reason = Reason.PASS_NOT_FOUND


class CheckpointNotFoundError(NotFoundError):
    """The session has no checkpoint of this name, or none that leads to this step."""

    _reason = Reason.CHECKPOINT_NOT_FOUND


class AlreadyExistsError(BackwireError):
    """What the call would create exists already."""

    _code, _reason = Code.ALREADY_EXISTS, Reason.PASS_EXISTS


class FailedPreconditionError(BackwireError):
    """The call is right, but the session is not in the state for it."""

    _code = Code.FAILED_PRECONDITION


class PassExpiredError(FailedPreconditionError):
    """The pass is gone: its Backward used it up, or it was dropped for its age or for newer ones; run Forward again."""

    _reason = Reason.PASS_EXPIRED


class NoGradientsError(FailedPreconditionError):
    """Nothing was accumulated since the last Step."""

    _reason = Reason.NO_GRADIENTS


class NoOptimizerError(FailedPreconditionError):
    """The session was created without an optimizer."""

    _reason = Reason.NO_OPTIMIZER


class NoLossError(FailedPreconditionError):
    """The graph has no loss to differentiate; give output gradients."""

    _reason = Reason.NO_LOSS


class NonFiniteGradientError(FailedPreconditionError):
    """A gradient is NaN or infinite; nothing was changed, and the gradients can be read."""

    _reason = Reason.NON_FINITE_GRADIENT


class NotDurableError(FailedPreconditionError):
    """The session is kept in memory alone, or the server has no data directory to keep one in."""

    _reason = Reason.NOT_DURABLE


class ExecutorUnavailableError(FailedPreconditionError):
    """The server lacks what the session's executor needs."""

    _reason = Reason.EXECUTOR_UNAVAILABLE


class ResultNotRetainedError(FailedPreconditionError):
    """The request was applied before, but the server no longer has its answer."""

    _reason = Reason.RESULT_NOT_RETAINED


class DependencyFailedError(FailedPreconditionError):
    """An earlier request of the pipeline failed, and this one depends on it; nothing was changed.

    Its error is the `__cause__` of this one.
    """

    _reason = Reason.DEPENDENCY_FAILED


class AbortedError(BackwireError):
    """Another client came between; read the state again and decide."""

    _code = Code.ABORTED


class StepMismatchError(AbortedError):
    """The session is not at `expected_step`; nothing was changed."""

    _reason = Reason.STEP_MISMATCH


class StalePassError(AbortedError):
    """The session was stepped more often since the pass was made than its `max_staleness`; nothing was changed.

    The same Backward fails again: run Forward with the parameters as they are now.
    """

    _reason = Reason.STALE_PASS


class WriterFencedError(AbortedError):
    """The session has a writer lease, and this client's is not it, or no longer; nothing was changed.

    The message names who holds it. `Session.attach` takes the lease over.
    """

    _reason = Reason.WRITER_FENCED


class LeaseHeldError(AbortedError):
    """Another client holds the writer lease and was heard of lately; it may be had after `retry_after` seconds."""

    _reason = Reason.LEASE_HELD


class ResourceExhaustedError(BackwireError):
    """A limit of the server was hit."""

    _code = Code.RESOURCE_EXHAUSTED


class OverloadedError(ResourceExhaustedError):
    """The server has too much to do right now; it expects to accept the call after `retry_after` seconds."""

    _reason = Reason.OVERLOADED


class TooLargeError(ResourceExhaustedError):
    """A graph, pass or message is larger than the server takes."""

    _reason = Reason.MESSAGE_TOO_LARGE


class DiskQuotaExceededError(ResourceExhaustedError):
    """The files of the server's sessions hold as many bytes as they may; delete checkpoints or sessions."""

    _reason = Reason.DISK_QUOTA_EXCEEDED


class AuthenticationError(BackwireError):
    """The token is missing or wrong."""

    _code = Code.UNAUTHENTICATED


class PermissionDeniedError(BackwireError):
    """The token does not allow this call."""

    _code = Code.PERMISSION_DENIED


class UnavailableError(BackwireError, ConnectionError):
    """The server cannot be reached, or is shutting down; all retries failed too."""

    _code = Code.UNAVAILABLE


class RecoveringError(UnavailableError):
    """The session is being made again from its files, for longer than the retries lasted."""

    _reason = Reason.RECOVERING


class StorageFailedError(UnavailableError):
    """The server's disk could not be written or read, for longer than the retries lasted; nothing was changed."""

    _reason = Reason.STORAGE_FAILED


class ServerStartError(UnavailableError):
    """The embedded server did not come up; the message has what it wrote to its standard error."""


class DeadlineExceededError(BackwireError, TimeoutError):
    """The answer did not come in time. A mutation may have been applied; repeating its `request_id` is safe."""

    _code, _reason = Code.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED


class CancelledError(BackwireError):
    """The call was cancelled, here or by the server."""

    _code, _reason = Code.CANCELLED, Reason.CANCELLED


class ClientClosedError(BackwireError):
    """The client was closed; connect again."""

    _code = Code.FAILED_PRECONDITION


class MissingExtraError(BackwireError, ImportError):
    """A package is not installed that only some calls need; the message says how to install it."""

    _code = Code.FAILED_PRECONDITION


class ServerError(BackwireError):
    """The server failed in a way that is not the caller's fault; its log has the details."""

    _code, _reason = Code.INTERNAL, Reason.INTERNAL


class SessionQuarantinedError(ServerError):
    """The files of the session are damaged, and the server guesses nothing; the message names the file and the remedy.

    Other sessions are not concerned.
    """

    _code, _reason = Code.DATA_LOSS, Reason.SESSION_QUARANTINED


class UnsupportedCallError(ServerError):
    """The server does not have this call: it is older than the client, or not a Backwire server."""

    _code = Code.UNIMPLEMENTED
