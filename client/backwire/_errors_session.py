"""What contradicts the state of the server's sessions: things that are missing, there already, or moved on."""

from backwire._errors import BackwireError, Code
from backwire_api.reasons import Reason


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
