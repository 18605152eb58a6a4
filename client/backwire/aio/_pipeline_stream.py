"""Keeps a Pipeline stream going on an event loop, as `backwire._wire._pipeline_stream` does on a thread."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

import grpc

from backwire._errors import BackwireError
from backwire._errors_service import DeadlineExceededError, ServerError, UnavailableError
from backwire._wire._failures import from_rpc_error
from backwire._wire._in_flight import REMEMBERED_ERRORS, Entry, InFlight, for_request
from backwire._wire._pipeline_messages import Answer, AnswerReader, Request
from backwire._wire._retry import Attempts, is_transient
from backwire._wire._timeout import waits
from backwire.aio._transport import Transport

T = TypeVar("T")


class PipelineFuture(Generic[T]):
    """The result of a request that is in flight; awaiting it is awaiting `result`. It cannot be cancelled.

    Attributes:
        request_id: The id of the mutation; None for a request that changes nothing.
        seen: Whether anybody asked for the result, or for the exception.
    """

    def __init__(self, request_id: str | None, patience: float) -> None:
        self.seen = False
        self.request_id = request_id
        self._patience = patience
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(self) -> bool:
        """Tells whether the answer came, or an error in its place."""
        return self._future.done()

    async def result(self, timeout: float | None = None) -> T:
        """Awaits the result and returns it; raises what a call of its own would have raised.

        Raises DeadlineExceededError after `timeout` seconds, None for those of the pipeline; it goes on all the same.
        """
        await self._wait(timeout)
        return self._future.result()

    async def exception(self, timeout: float | None = None) -> BaseException | None:
        """Awaits as `result` does and returns what that would raise, None for nothing."""
        await self._wait(timeout)
        return self._future.exception()

    def add_done_callback(self, callback: "Callable[[PipelineFuture[T]], object]") -> None:
        """Has `callback` called with this future once it is done."""
        self._future.add_done_callback(lambda _: callback(self))

    def resolve(self, result: Any, error: BackwireError | None) -> None:
        """Sets the outcome."""
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)
            self._future.exception()  # whether anybody asked for it is `seen`

    def __repr__(self) -> str:
        state = "done" if self.done() else "on its way"
        return f"<{type(self).__name__} {self.request_id or 'that changes nothing'}: {state}>"

    async def _wait(self, timeout: float | None) -> None:
        self.seen = True
        seconds = self._patience if timeout is None else timeout
        for _ in waits(seconds):
            await asyncio.wait([self._future], timeout=None if math.isinf(seconds) else seconds)
        if not self.done():
            raise DeadlineExceededError(
                f"no answer came in {seconds:g} s; wait again, or repeat it with request_id={self.request_id!r}",
                request_id=self.request_id,
            )

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()


class PipelineStream:
    """Requests in flight, on a stream that is opened when it is needed.

    A stream that breaks is replaced, and what was not answered is sent again in order under the same request_ids.
    """

    def __init__(self, transport: Transport, limit: int, depth: int, timeout: float) -> None:
        """Lets `depth` requests be in flight; tensors beyond `limit` bytes go in chunks."""
        self._transport = transport
        self._limit = limit
        self._depth = depth
        self.timeout = timeout
        self._turn = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._flight = InFlight()
        self._queue: asyncio.Queue[Entry | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._failed: deque[PipelineFuture[Any]] = deque(maxlen=REMEMBERED_ERRORS)
        self._dead: BackwireError | None = None

    async def submit(self, request: Request, decode: Callable[[Answer], T], future: PipelineFuture[T]) -> None:
        """Sends a request when there is room for it; `future` gets what `decode` makes of its answer.

        Raises DeadlineExceededError when there is none in time, and what made the pipeline fail if it did.
        """
        async with self._turn:
            await self._wait(lambda: len(self._flight.entries) < self._depth or self._dead is not None)
            if self._dead is not None:
                raise for_request(self._dead, None)
            number = self._flight.sent + 1
            messages = list(request.messages(number, self._limit))  # now, since the caller may change the arrays
            entry = Entry(number, request, messages, future, decode)
            self._flight.add(entry)
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="backwire-pipeline")
            else:
                self._queue.put_nowait(entry)

    async def drain(self) -> None:
        """Awaits that every request was answered; raises DeadlineExceededError when no answer comes in time."""
        while self._flight.entries:
            left = len(self._flight.entries)
            await self._wait(lambda left=left: len(self._flight.entries) < left)  # type: ignore[misc]

    async def raise_unseen(self) -> None:
        """Raises the first error of a future that nobody asked."""
        for future in self._failed:
            if not future.seen:
                await future.result()

    def close(self) -> None:
        """Ends the stream when all that was sent is answered; nothing may be submitted after that."""
        self._closing = True
        self._dead = self._dead or UnavailableError("the pipeline was closed; open another one")
        self._queue.put_nowait(None)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        for _ in waits(self.timeout):
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(self.timeout) else self.timeout), self._changed:
                    await self._changed.wait_for(condition)
                    return
        raise DeadlineExceededError(f"no answer came within {self.timeout:g} s; give the pipeline a longer timeout")

    async def _run(self) -> None:
        try:
            await self._converse_until_done()
        except Exception as failure:  # nobody else would tell those who wait
            error = ServerError(f"the pipeline failed: {failure}")
            error.__cause__ = failure
            await self._fail(error)

    async def _converse_until_done(self) -> None:
        attempts: Attempts | None = None
        while True:
            answered = self._flight.answered
            try:
                await self._converse()
                error: BackwireError = UnavailableError("the server ended the stream before it answered all requests")
            except grpc.RpcError as failure:
                error = from_rpc_error(failure, None)
            except BackwireError as failure:
                error = failure
            if attempts is None or self._flight.answered > answered:
                attempts = self._transport.attempts(self.timeout)
            if not await self._goes_on(error, attempts):
                return

    async def _converse(self) -> None:
        """Sends what is outstanding, and reads answers until the stream ends."""
        queue = self._queue = asyncio.Queue()
        for entry in self._flight.entries.values():
            queue.put_nowait(entry)
        if self._closing:
            queue.put_nowait(None)
        reader = AnswerReader()
        with self._transport.span():
            async with aclosing(self._transport.converse(_Messages(queue, self._flight))) as conversation:
                async for data in conversation:
                    answer = reader.read(data)
                    if answer is not None:
                        await self._settle(answer)

    async def _settle(self, answer: Answer) -> None:
        entry = self._flight.first(answer)
        result, error = self._flight.outcome(entry, answer)
        if error is None:
            self._transport.budget.succeeded()
        elif is_transient(error, repeatable=entry.request.repeatable) and self._flight.rest_waits:
            raise error  # and send all of it again later
        self._resolve(entry.future, result, error)
        self._flight.done(entry, failed=answer.error is not None)
        await self._tell()

    async def _goes_on(self, error: BackwireError, attempts: Attempts) -> bool:
        """Waits before the next attempt and tells if there is one; else fails what is outstanding."""
        if not self._flight.entries:
            self._task = None
            return False
        lost = self._flight.lost
        wait = attempts.wait_before_retry(error, repeatable=self._flight.repeatable)
        if wait is None or lost:
            await self._fail(error)
            return False
        await self._transport.pause(wait, error)
        return True

    async def _fail(self, error: BackwireError) -> None:
        self._dead = self._dead or error
        for entry in self._flight.entries.values():
            self._resolve(entry.future, None, for_request(error, entry.request.request_id))
        self._flight.entries.clear()
        await self._tell()

    def _resolve(self, future: PipelineFuture[Any], result: Any, error: BackwireError | None) -> None:
        if error is not None:
            self._failed.append(future)
        future.resolve(result, error)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class _Messages:
    """What is sent on a stream, which tells since when that is not answered; see `backwire._wire._waiting`."""

    def __init__(self, queue: "asyncio.Queue[Entry | None]", flight: InFlight) -> None:
        self._queue = queue
        self._flight = flight

    def unanswered_since(self) -> float | None:
        return self._flight.unanswered_since

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (entry := await self._queue.get()) is not None:
            for message in entry.messages:
                yield message
