"""Keeps a Pipeline stream going: sends requests, hands out answers, and opens another stream when one breaks."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc

from backwire._errors import BackwireError
from backwire._errors_service import DeadlineExceededError, ServerError, UnavailableError
from backwire._wire._failures import from_rpc_error
from backwire._wire._in_flight import REMEMBERED_ERRORS, Entry, InFlight, for_request
from backwire._wire._pipeline_messages import Answer, AnswerReader, Request
from backwire._wire._retry import Attempts, is_transient
from backwire._wire._timeout import waits
from backwire._wire._transport import Transport

T = TypeVar("T")


class PipelineFuture(Future[T]):
    """The result of a request that is in flight. It cannot be cancelled.

    Attributes:
        request_id: The id of the mutation; None for a request that changes nothing.
        seen: Whether anybody asked for the result, or for the exception.
    """

    def __init__(self, request_id: str | None, patience: float) -> None:
        super().__init__()
        self.seen = False
        self.request_id = request_id
        self._patience = patience
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> T:
        """Waits for the result and returns it; raises what a call of its own would have raised.

        Raises DeadlineExceededError after `timeout` seconds, None for those of the pipeline; it goes on all the same.
        """
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits as `result` does and returns what that would raise, None for nothing."""
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        self.seen = True
        seconds = self._patience if timeout is None else timeout
        for _ in waits(seconds):
            with suppress(TimeoutError):
                super().exception(min(seconds, threading.TIMEOUT_MAX))
        if not self.done():
            raise DeadlineExceededError(
                f"no answer came in {seconds:g} s; wait again, or repeat it with request_id={self.request_id!r}",
                request_id=self.request_id,
            )


class PipelineStream:
    """Requests in flight, on a stream that is opened when it is needed. May be used by several threads at once.

    A stream that breaks is replaced, and what was not answered is sent again in order under the same request_ids.
    """

    def __init__(self, transport: Transport, limit: int, depth: int, timeout: float) -> None:
        """Lets `depth` requests be in flight; tensors beyond `limit` bytes go in chunks."""
        self._transport = transport
        self._limit = limit
        self._depth = depth
        self.timeout = timeout
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._flight = InFlight()
        self._outstanding = self._flight.entries
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._running = self._closing = False
        self._failed: deque[PipelineFuture[Any]] = deque(maxlen=REMEMBERED_ERRORS)
        self._dead: BackwireError | None = None
        self._traced = copy_context()  # the stream is a part of the trace in which it was made

    def submit(self, request: Request, decode: Callable[[Answer], T], future: PipelineFuture[T]) -> None:
        """Sends a request when there is room for it; `future` gets what `decode` makes of its answer.

        Raises DeadlineExceededError when there is none in time, and what made the pipeline fail if it did.
        """
        with self._turn:
            with self._changed:
                self._wait(lambda: len(self._outstanding) < self._depth or self._dead is not None)
                self._check_alive()
            number = self._flight.sent + 1
            messages = list(request.messages(number, self._limit))  # now, since the caller may change the arrays
            with self._changed:
                self._check_alive()
                self._send(Entry(number, request, messages, future, decode))

    def drain(self) -> None:
        """Waits until every request was answered; raises DeadlineExceededError when no answer comes in time."""
        with self._changed:
            while self._outstanding:
                left = len(self._outstanding)
                self._wait(partial(self._fewer, left))

    def raise_unseen(self) -> None:
        """Raises the first error of a future that nobody asked."""
        for future in self._failed:
            if not future.seen:
                future.result()

    def close(self) -> None:
        """Ends the stream when all that was sent is answered; nothing may be submitted after that."""
        with self._changed:
            self._closing = True
            self._dead = self._dead or UnavailableError("the pipeline was closed; open another one")
            self._queue.put(None)

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise for_request(self._dead, None)

    def _send(self, entry: Entry) -> None:
        if not self._running:  # first, since nobody would answer what waits for a thread that cannot be started
            threading.Thread(
                target=self._traced.copy().run, args=(self._run,), name="backwire-pipeline", daemon=True
            ).start()
        self._flight.add(entry)
        if self._running:
            self._queue.put(entry)
        self._running = True

    def _fewer(self, left: int) -> bool:
        return len(self._outstanding) < left

    def _wait(self, condition: Callable[[], bool]) -> None:
        seconds = min(self.timeout, threading.TIMEOUT_MAX)
        if not any(self._changed.wait_for(condition, seconds) for _ in waits(seconds)):
            raise DeadlineExceededError(f"no answer came within {self.timeout:g} s; give the pipeline a longer timeout")

    def _run(self) -> None:
        try:
            self._converse_until_done()
        except Exception as failure:  # nobody else would tell those who wait
            error = ServerError(f"the pipeline failed: {failure}")
            error.__cause__ = failure
            self._fail(error)

    def _converse_until_done(self) -> None:
        attempts: Attempts | None = None
        while True:
            answered = self._answered_count()
            try:
                self._converse()
                error: BackwireError = UnavailableError("the server ended the stream before it answered all requests")
            except grpc.RpcError as failure:
                error = from_rpc_error(failure, None)
            except BackwireError as failure:
                error = failure
            if attempts is None or self._answered_count() > answered:
                attempts = self._transport.attempts(self.timeout)
            if not self._goes_on(error, attempts):
                return

    def _answered_count(self) -> int:
        with self._changed:
            return self._flight.answered

    def _converse(self) -> None:
        """Sends what is outstanding, and reads answers until the stream ends."""
        with self._changed:
            queue = self._queue = SimpleQueue()
            for entry in self._outstanding.values():
                queue.put(entry)
            if self._closing:
                queue.put(None)
        reader = AnswerReader()
        try:
            with self._transport.span():
                for data in self._transport.converse(_Messages(queue, self._flight)):
                    answer = reader.read(data)
                    if answer is not None:
                        self._settle(answer)
        finally:
            queue.put(None)  # ends the thread that waits for requests to send

    def _settle(self, answer: Answer) -> None:
        with self._changed:
            entry = self._flight.first(answer)
        result, error = self._flight.outcome(entry, answer)
        if error is None:
            self._transport.budget.succeeded()
        elif is_transient(error, repeatable=entry.request.repeatable) and self._rest_waits():
            raise error  # and send all of it again later
        self._resolve(entry.future, result, error)
        with self._changed:
            self._flight.done(entry, failed=answer.error is not None)
            self._changed.notify_all()

    def _rest_waits(self) -> bool:
        with self._changed:
            return self._flight.rest_waits

    def _goes_on(self, error: BackwireError, attempts: Attempts) -> bool:
        """Waits before the next attempt and tells if there is one; else fails what is outstanding."""
        with self._changed:
            if not self._outstanding:
                self._running = False
                return False
            lost, repeatable = self._flight.lost, self._flight.repeatable
        wait = attempts.wait_before_retry(error, repeatable=repeatable)
        if wait is None or lost:
            self._fail(error)
            return False
        self._transport.pause(wait, error)
        return True

    def _fail(self, error: BackwireError) -> None:
        with self._changed:
            self._dead = self._dead or error
            self._running = False
            entries = list(self._outstanding.values())
        for entry in entries:
            self._resolve(entry.future, None, for_request(error, entry.request.request_id))
        with self._changed:
            self._outstanding.clear()
            self._changed.notify_all()

    def _resolve(self, future: PipelineFuture[Any], result: Any, error: BackwireError | None) -> None:
        if error is None:
            future.set_result(result)
            return
        self._failed.append(future)
        future.set_exception(error)


class _Messages(Iterator[bytes]):
    """What is sent on a stream, which tells since when that is not answered; see `backwire._wire._waiting`."""

    def __init__(self, queue: "SimpleQueue[Entry | None]", flight: InFlight) -> None:
        self._flight = flight
        self._messages = (message for entry in iter(queue.get, None) for message in entry.messages)

    def unanswered_since(self) -> float | None:
        return self._flight.unanswered_since

    def __next__(self) -> bytes:
        return next(self._messages)
