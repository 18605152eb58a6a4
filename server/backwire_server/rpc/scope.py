"""How long a gRPC call may go on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

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

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Calls `wait`."""
        wait()

    def check(self) -> None:
        """Raises DeadlineExceeded when the time is up, Cancelled when the client has gone."""
        if self._context.time_remaining() <= 0:
            raise DeadlineExceeded(
                "the deadline passed before the call was done; nothing was changed, give it more time"
            )
        if not self._context.is_active():
            raise Cancelled("the call was cancelled before it was done; nothing was changed")


class PipelineScope(RpcScope):
    """The scope of the requests on a stream, whose answers wait for what they must while others are done."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        super().__init__(context)
        self._flush: Future[None] | None = None
        self._flusher: ThreadPoolExecutor | None = None

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Has a thread of its own call `wait`; see `take_flush`."""
        if self._flusher is None:
            self._flusher = ThreadPoolExecutor(1, "backwire-pipeline-flush")
        self._flush = self._flusher.submit(wait)

    def take_flush(self) -> "Future[None] | None":
        """Returns what was begun by `before_answer` since the last time; None for nothing."""
        flush, self._flush = self._flush, None
        return flush

    def close(self) -> None:
        """Ends the thread, once it has nothing to do."""
        if self._flusher is not None:
            self._flusher.shutdown(wait=False)
