"""What can be wrong with a call on a session, and with a call on the server that keeps the sessions.

    SessionError
    ├── InvalidRequest             the call says something that cannot be done
    │   ├── InvalidTensor
    │   ├── UnsupportedOpset
    │   ├── UnknownParameter
    │   ├── InvalidPageToken
    │   ├── RequestIdReused
    │   └── InvalidExport
    ├── SessionNotFound
    ├── SessionLost
    ├── SessionQuarantined
    ├── PassNotFound
    ├── CheckpointNotFound
    ├── PassExists
    ├── FailedPrecondition         the call is right, but the session is not in the state for it
    │   ├── PassExpired
    │   ├── NoGradients
    │   ├── NoOptimizer
    │   ├── NoLoss
    │   ├── NonFiniteGradient
    │   ├── ResultNotRetained
    │   ├── NotDurable
    │   ├── ExecutorUnavailable
    │   └── DependencyFailed
    ├── StepMismatch
    ├── StalePass
    ├── WriterFenced
    ├── LeaseHeld
    ├── LimitExceeded              a limit of the server was hit; `quota` names it
    │   ├── GraphTooLarge
    │   ├── PassTooLarge
    │   ├── MessageTooLarge
    │   ├── CallTooLarge
    │   ├── TooManySessions
    │   ├── OutOfMemory
    │   ├── DiskQuotaExceeded
    │   └── Overloaded
    ├── StorageFailed
    ├── Unauthenticated
    ├── PermissionDenied
    ├── ShuttingDown
    ├── NoWorker
    ├── Recovering
    ├── WrongReplica
    ├── Cancelled
    └── DeadlineExceeded

Wrong graphs and values have errors of their own: see `engine.errors` and `optim.errors`. Whatever is raised, the
session is as it was before the call.
"""


class SessionError(Exception):
    """The root. The message says what was wrong and ends with the remedy.

    Attributes:
        field: The path of what was wrong in the request, such as `inputs[x]`; empty where nothing in it was.
        retry_after: The seconds after which the same call may succeed; None where waiting does not help.
        quota: The limit that was hit, such as `max_sessions`; empty where none was.
    """

    def __init__(self, message: str, *, field: str = "", retry_after: float | None = None, quota: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.retry_after = retry_after
        self.quota = quota


class InvalidRequest(SessionError):
    """The call says something that cannot be done, whatever the state of the session."""


class InvalidTensor(InvalidRequest):
    """The dtype, shape and bytes of a tensor do not fit together."""


class UnsupportedOpset(InvalidRequest):
    """The graph wants the semantics of an operator set that this server does not implement."""


class UnknownParameter(InvalidRequest):
    """The graph has no parameter of this name, or none that can be trained where that is needed."""


class InvalidPageToken(InvalidRequest):
    """The page token was not issued by this server."""


class InvalidExport(InvalidRequest):
    """What was to be imported is not what ExportSession sends, or it is damaged."""


class RequestIdReused(InvalidRequest):
    """The request id belongs to another request."""


class SessionNotFound(SessionError):
    """There is no session of this id, or no longer."""


class SessionLost(SessionError):
    """The process that kept the session ended unexpectedly, or its device failed, and the session is gone with it."""


class PassNotFound(SessionError):
    """There is no pass of this name, and none is remembered."""


class PassExists(SessionError):
    """A live pass has this name."""


class FailedPrecondition(SessionError):
    """The call is right, but the session is not in the state for it."""


class PassExpired(FailedPrecondition):
    """The pass is gone: used up by its Backward, too old, or pushed out by newer ones."""


class NoGradients(FailedPrecondition):
    """Nothing was accumulated since the last Step."""


class NoOptimizer(FailedPrecondition):
    """The session was created without an optimizer."""


class NoLoss(FailedPrecondition):
    """The graph has no loss."""


class NonFiniteGradient(FailedPrecondition):
    """A gradient is NaN or infinite, and the call did not say to go on."""


class NotDurable(FailedPrecondition):
    """The session is kept in memory alone."""


class ExecutorUnavailable(FailedPrecondition):
    """The server cannot compute by what the session asks for."""


class ResultNotRetained(FailedPrecondition):
    """The mutation was applied before, but its answer was too large to be kept."""


class DependencyFailed(FailedPrecondition):
    """The call depends on an earlier one of its stream, which failed.

    Attributes:
        failed_id: The id of the one that failed first.
    """

    def __init__(self, message: str, failed_id: int) -> None:
        super().__init__(message)
        self.failed_id = failed_id


class StepMismatch(SessionError):
    """The session is not at the step that the caller expected."""


class StalePass(SessionError):
    """More steps were applied since the pass was made than the session allows."""


class WriterFenced(SessionError):
    """The session has a writer lease, and the caller's is not it."""


class LeaseHeld(SessionError):
    """Another holds the writer lease, and was heard of lately."""


class CheckpointNotFound(SessionError):
    """The session has no checkpoint of this name, or none that leads to this step."""


class SessionQuarantined(SessionError):
    """The files of the session are damaged, and nothing is guessed about what was in them."""


class StorageFailed(SessionError):
    """The disk could not be written or read, so nothing was changed."""


class LimitExceeded(SessionError):
    """A limit of the server was hit."""


class GraphTooLarge(LimitExceeded):
    """The graph has more nodes, parameters or bytes than the server takes."""


class PassTooLarge(LimitExceeded):
    """A single pass is larger than what a session may keep."""


class MessageTooLarge(LimitExceeded):
    """The answer would be larger than the largest message."""


class CallTooLarge(LimitExceeded):
    """The call needs more work or memory than any call may."""


class TooManySessions(LimitExceeded):
    """The server keeps as many sessions as it may."""


class OutOfMemory(LimitExceeded):
    """The memory that the server may use does not suffice."""


class DiskQuotaExceeded(LimitExceeded):
    """The files of all sessions hold as many bytes as they may."""


class Overloaded(LimitExceeded):
    """The server has as much to do as it may; later it will have less."""


class Unauthenticated(SessionError):
    """The caller does not say who it is, or cannot prove it."""


class PermissionDenied(SessionError):
    """The caller is known, and may not do this."""


class ShuttingDown(SessionError):
    """The server takes no new calls, since it is about to end."""


class NoWorker(SessionError):
    """No process that keeps sessions is ready; soon there will be one."""


class Recovering(SessionError):
    """The session is being made again from its files; soon it will be there."""


class WrongReplica(SessionError):
    """Another of the servers behind the same address keeps the session.

    Attributes:
        owner: Where that one is called; empty where it is not known.
        gone: Where a server was called that lives no more, if the caller asked for it.
        undone: Whether nothing at all was done for the call, as is not known where a session was taken away meanwhile.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        owner: str = "",
        gone: str = "",
        undone: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.owner = owner
        self.gone = gone
        self.undone = undone


class Cancelled(SessionError):
    """The caller is gone."""


class DeadlineExceeded(SessionError):
    """The time that the caller gave has passed."""
