"""Sends calls over a channel: deadlines, retries, metadata, and one translation of every failure."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from backwire._errors import BackwireError, ClientClosedError, InvalidRequestError
from backwire._failures import from_rpc_error
from backwire._retry import Attempts, Budget, Retry
from backwire._stub import Stub

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")

DEFAULT_TIMEOUT = 60.0
PIPELINE = "/backwire_api.v1.GradientService/Pipeline"

# `request_id` below: None for a call that changes nothing, empty for a mutation without protection against repetition.


class Transport:
    """A channel and how calls on it behave. May be used by several threads at once."""

    def __init__(self, channel: grpc.Channel, *, token: str | None, timeout: float | None, retry: Retry) -> None:
        """Takes over the channel; `timeout` is the default of every call in seconds, None for DEFAULT_TIMEOUT."""
        self.stub = Stub(channel)
        self._channel = channel
        self._pipeline: Any = channel.stream_stream(PIPELINE)
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        self._timeout = _positive(DEFAULT_TIMEOUT if timeout is None else timeout)
        self._retry = retry
        self.budget = Budget(retry.rate)
        self._closed = False

    def unary(
        self,
        rpc: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Returns the response to the request."""
        return self.run(lambda seconds: rpc(request, timeout=seconds, metadata=self._metadata), timeout, request_id)

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
            call: Any = rpc(request, timeout=seconds, metadata=self._metadata)
            try:
                return decode(call)
            finally:
                call.cancel()

        return self.run(attempt, timeout, None)

    def upload(
        self,
        rpc: "grpc.StreamUnaryMultiCallable[Request, Response]",
        requests: Callable[[], Iterator[Request]],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Returns the response to a stream of requests, which is made anew for every attempt."""
        return self.run(lambda seconds: rpc(requests(), timeout=seconds, metadata=self._metadata), timeout, request_id)

    def attempts(self, seconds: float) -> Attempts:
        """Returns what a call may still do that begins now and may take so many seconds."""
        return Attempts(self._retry, self.budget, seconds)

    def patience(self, timeout: float | None) -> float:
        """Returns the seconds that a call may take, the default for None; raises InvalidRequestError for none."""
        return self._timeout if timeout is None else _positive(timeout)

    def converse(self, messages: Iterator[bytes], seconds: float | None = None) -> Iterator[bytes]:
        """Yields the serialized answers on a Pipeline stream, once; raises grpc.RpcError when it breaks."""
        if self._closed:
            raise ClientClosedError("the client was closed; connect again")
        try:
            call: Any = self._pipeline(messages, timeout=seconds, metadata=self._metadata)
        except ValueError:  # by another thread, meanwhile
            raise ClientClosedError("the client was closed; connect again") from None
        try:
            yield from call
        finally:
            call.cancel()

    def close(self) -> None:
        """Closes the channel; calls in progress are cancelled. Closing again does nothing."""
        self._closed = True
        self._channel.close()

    def run(self, attempt: Callable[[float | None], Result], timeout: float | None, request_id: str | None) -> Result:
        """Returns what `attempt` does in the seconds that are left; repeats it when the server could not take it."""
        if self._closed:
            raise ClientClosedError("the client was closed; connect again")
        attempts = self.attempts(self.patience(timeout))
        while True:
            try:
                result = attempt(attempts.remaining)
            except grpc.RpcError as failure:
                error: BackwireError = from_rpc_error(failure, request_id)
            except BackwireError as failure:  # told in an answer on a stream
                error = failure
            except ValueError:
                if self._closed:  # by another thread, meanwhile
                    raise ClientClosedError("the client was closed; connect again") from None
                raise
            else:
                self.budget.succeeded()
                return result
            wait = attempts.wait_before_retry(error, repeatable=request_id != "")
            if wait is None:
                raise error
            time.sleep(wait)


def _positive(timeout: float) -> float:
    if math.isnan(timeout) or timeout <= 0:
        raise InvalidRequestError(
            f"a timeout of {timeout} s leaves no time; give seconds above 0, or math.inf for none"
        )
    return timeout
