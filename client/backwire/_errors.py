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
