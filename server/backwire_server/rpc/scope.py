"""Who makes a gRPC call, how long it may go on, and where its time goes."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import grpc

from backwire_server.sessions.caller import ANYONE, Caller
from backwire_server.sessions.errors import Cancelled, DeadlineExceeded
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.spent import Spent

_FOREVER = 1e9  # seconds; gRPC says "no deadline" by one in the far future


class RpcScope:
    """A call, as `sessions.scope.CallScope`.

    Attributes:
        context: What gRPC knows of the call.
        caller: Who calls; anyone until that is known.
        spent: Where its time goes.
        stop: Is wanted from when the client is gone or the deadline has passed.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        """Is of a call that begins now: from here on gRPC would tell its deadline by a clock that may be set."""
        seconds = context.time_remaining()
        self._deadline = math.inf if seconds > _FOREVER else time.monotonic() + seconds
        self.context = context
        self.caller: Caller = ANYONE
        self.spent = Spent()
        self.stop = CallStop()

    def end(self) -> None:
        """Notes that the call is over for the client."""
        self.stop.end()

    def remaining(self) -> float | None:
        """The seconds until the deadline, at least zero; None when there is none."""
        return None if math.isinf(self._deadline) else max(self._deadline - time.monotonic(), 0.0)

    def before_answer(self, wait: Callable[[], None]) -> None:
        """Calls `wait`."""
        began = time.perf_counter()
        wait()
        self.spent.journal += time.perf_counter() - began

    def check(self) -> None:
        """Raises DeadlineExceeded when the time is up, Cancelled when the client has gone."""
        if time.monotonic() >= self._deadline:
            raise DeadlineExceeded(
                "the deadline passed before the call was done; nothing was changed, give it more time"
            )
        if not self.context.is_active():
            raise Cancelled("the call was cancelled before it was done; nothing was changed")


class PipelineScope(RpcScope):
    """The scope of the requests on a stream, whose answers wait for what they must while others are done."""

    def __init__(self, call: RpcScope) -> None:
        """Is a part of the stream's own scope."""
        super().__init__(call.context)
        self.caller, self.stop, self._deadline = call.caller, call.stop, call._deadline
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

    def take_spent(self) -> Spent:
        """Returns where the time went since the last time."""
        spent, self.spent = self.spent, Spent()
        return spent

    def close(self) -> None:
        """Ends the thread, once it has nothing to do."""
        if self._flusher is not None:
            self._flusher.shutdown(wait=False)
