"""How long a gRPC call may go on."""

import grpc

from backwire_server.sessions.errors import Cancelled, DeadlineExceeded

_FOREVER = 1e9  # seconds; gRPC says "no deadline" by one in the far future


class RpcScope:
    """The deadline and the cancellation of a call, as `sessions.scope.CallScope`."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is none."""
        seconds = self._context.time_remaining()
        return None if seconds > _FOREVER else max(seconds, 0.0)

    def check(self) -> None:
        """Raises DeadlineExceeded when the time is up, Cancelled when the client has gone."""
        if self._context.time_remaining() <= 0:
            raise DeadlineExceeded(
                "the deadline passed before the call was done; nothing was changed, give it more time"
            )
        if not self._context.is_active():
            raise Cancelled("the call was cancelled before it was done; nothing was changed")
