"""Sends calls over a channel: deadlines, retries, metadata, and one translation of every failure."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from backwire._errors import BackwireError
from backwire._errors_service import ClientClosedError, DeadlineExceededError, UnavailableError, UnsupportedCallError
from backwire._wire._call import Call, Download, Upload
from backwire._wire._failures import from_rpc_error, unsupported
from backwire._wire._health import checking, health
from backwire._wire._retry import Retry
from backwire._wire._timeout import Timeout
from backwire._wire._tracing import CallSpan
from backwire._wire._transport_base import VERSION_REQUEST, VERSION_SECONDS, TransportBase
from backwire_api.threads import check_thread, check_two_threads

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")
# `request_id` below: None for a call that changes nothing, empty for a mutation without protection against repetition.


class Transport(TransportBase):
    """A channel whose calls are waited for. May be used by several threads at once."""

    def __init__(self, channel: Any, *, token: str | None, timeout: Timeout | float | None, retry: Retry) -> None:
        """Takes over the channel; `timeout` holds for calls that are given none of their own."""
        super().__init__(channel, token=token, timeout=timeout, retry=retry)
        self._check = checking(channel)

    def send(self, call: Call[Result], timeout: float | None) -> Result:
        """Returns the outcome of a call."""
        rpc = getattr(self.stub, call.rpc)
        return call.read(self.unary(rpc, call.request, timeout=timeout, request_id=call.request_id))

    def receive(self, call: Download[Result], timeout: float | None) -> Result:
        """Returns the outcome of a call whose answer comes in parts."""
        return self.download(getattr(self.stub, call.rpc), call.request, call.read, timeout=timeout)

    def put(self, call: Upload[Result], timeout: float | None) -> Result:
        """Returns the outcome of a call whose request goes in parts."""
        rpc = getattr(self.stub, call.rpc)
        return call.read(self.upload(rpc, call.requests, timeout=timeout, request_id=call.request_id))

    def unary(
        self,
        rpc: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Returns the response to the request."""
        return self.run(lambda seconds: rpc(request, timeout=seconds, metadata=self._told()), timeout, request_id, rpc)

    def download(
        self,
        rpc: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        decode: Callable[[Iterable[Response]], Result],
        *,
        timeout: float | None = None,
    ) -> Result:
        """Returns what `decode` makes of the streamed responses; a broken stream is read again from its start."""

        def attempt(seconds: float | None) -> Result:
            check_thread()
            call: Any = rpc(request, timeout=seconds, metadata=self._told())
            try:
                return decode(call)
            finally:
                call.cancel()

        return self.run(attempt, self.patience(timeout, "transfer"), None, rpc)

    def upload(
        self,
        rpc: "grpc.StreamUnaryMultiCallable[Request, Response]",
        requests: Callable[[], Iterator[Request]],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Returns the response to a stream of requests, which is made anew for every attempt."""

        def attempt(seconds: float | None) -> Response:
            check_two_threads()
            return rpc(requests(), timeout=seconds, metadata=self._told())

        return self.run(attempt, self.patience(timeout, "transfer"), request_id, rpc)

    def converse(self, messages: Iterator[bytes], seconds: float | None = None) -> Iterator[bytes]:
        """Yields the serialized answers on a Pipeline stream, once; raises grpc.RpcError when it breaks."""
        self._check_open()
        check_two_threads()
        try:
            call: Any = self._pipeline(messages, timeout=seconds, metadata=self._told())
        except ValueError:  # by another thread, meanwhile
            raise ClientClosedError("the client was closed; connect again") from None
        try:
            yield from call
        finally:
            call.cancel()

    def close(self) -> None:
        """Closes the channel; calls in progress are cancelled. Closing again does nothing."""
        self._closed.set()
        self._channel.close()

    def run(
        self,
        attempt: Callable[[float | None], Result],
        timeout: float | None,
        request_id: str | None,
        rpc: object = None,
    ) -> Result:
        """Returns what `attempt` does in the seconds that are left; repeats it when the server could not take it.

        `rpc` is the method of the stub that it calls, None for Pipeline.
        """
        with self.span(rpc) as span:
            return self._repeat(attempt, timeout, request_id, span)

    def pause(self, seconds: float, error: BackwireError) -> None:
        """Waits so long after an error before the call is sent again; no longer, once a lost connection is back.

        Until then it waits in a call of its own: older releases of grpcio connect only while a thread waits for one.
        """
        end = time.monotonic() + seconds
        lost = error.reason is None and not self._reaches(seconds)
        if lost and self._reaches(end - time.monotonic(), wait_for_ready=True):
            return
        self._closed.wait(max(0.0, end - time.monotonic()))

    def _reaches(self, seconds: float, *, wait_for_ready: bool = False) -> bool:
        """Tells whether anything answers within this time; with `wait_for_ready`, be it not there yet."""
        try:
            health(self._check, timeout=seconds, wait_for_ready=wait_for_ready)
        except (UnavailableError, DeadlineExceededError, ValueError):  # the last when closed by another thread
            return False
        except BackwireError:
            pass
        return True

    def _explained(self, error: BackwireError) -> BackwireError:
        """Returns the error, with the server's version where that is why."""
        if not isinstance(error, UnsupportedCallError):
            return error
        try:
            status = self.stub.GetStatus(VERSION_REQUEST, timeout=VERSION_SECONDS, metadata=self._told())
        except grpc.RpcError:  # it is older still
            return unsupported(error, "")
        return unsupported(error, status.version)

    def _repeat(
        self,
        attempt: Callable[[float | None], Result],
        timeout: float | None,
        request_id: str | None,
        span: CallSpan | None,
    ) -> Result:
        self._check_open()
        attempts = self.attempts(self.patience(timeout))
        while True:
            try:
                result = attempt(attempts.remaining)
            except grpc.RpcError as failure:
                error: BackwireError = from_rpc_error(failure, request_id)
            except BackwireError as failure:  # told in an answer on a stream
                error = failure
            except ValueError:
                if self._closed.is_set():  # by another thread, meanwhile
                    raise ClientClosedError("the client was closed; connect again") from None
                raise
            else:
                self.budget.succeeded()
                return result
            wait = attempts.wait_before_retry(error, repeatable=request_id != "")
            if wait is None:
                raise self._explained(error)
            if span is not None:
                span.repeated(error, wait)
            self.pause(wait, error)
