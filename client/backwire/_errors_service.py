"""What the service, the way to it or this client cannot do, whatever the call says."""

from backwire._errors import BackwireError, Code
from backwire_api.reasons import Reason


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
