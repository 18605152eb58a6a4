"""Sends calls over a channel: deadlines, retries, metadata, and one translation of every failure."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from backwire._errors import ClientClosedError, InvalidRequestError
from backwire._failures import from_rpc_error
from backwire._retry import Budget, Retry
from backwire_api.v1 import gradient_service_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")

DEFAULT_TIMEOUT = 60.0

# `request_id` below: None for a call that changes nothing, empty for a mutation without protection against repetition.


class Transport:
    """A channel and how calls on it behave. May be used by several threads at once."""

    def __init__(self, channel: grpc.Channel, *, token: str | None, timeout: float | None, retry: Retry) -> None:
        """Takes over the channel; `timeout` is the default of every call in seconds, None for DEFAULT_TIMEOUT."""
        self.stub = gradient_service_pb2_grpc.GradientServiceStub(channel)
        self._channel = channel
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        self._timeout = _positive(DEFAULT_TIMEOUT if timeout is None else timeout)
        self._retry = retry
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
        return self._run(lambda seconds: rpc(request, timeout=seconds, metadata=self._metadata), timeout, request_id)

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

        return self._run(attempt, timeout, None)

    def upload(
        self,
        rpc: "grpc.StreamUnaryMultiCallable[Request, Response]",
        requests: Callable[[], Iterator[Request]],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Returns the response to a stream of requests, which is made anew for every attempt."""
        return self._run(lambda seconds: rpc(requests(), timeout=seconds, metadata=self._metadata), timeout, request_id)

    def close(self) -> None:
        """Closes the channel; calls in progress are cancelled. Closing again does nothing."""
        self._closed = True
        self._channel.close()

    def _run(self, attempt: Callable[[float | None], Result], timeout: float | None, request_id: str | None) -> Result:
        if self._closed:
            raise ClientClosedError("the client was closed; connect again")
        budget = Budget(self._retry, self._timeout if timeout is None else _positive(timeout))
        while True:
            try:
                return attempt(budget.remaining)
            except grpc.RpcError as failure:
                error = from_rpc_error(failure, request_id)
            except ValueError:
                if self._closed:  # by another thread, meanwhile
                    raise ClientClosedError("the client was closed; connect again") from None
                raise
            wait = budget.wait_before_retry(error, repeatable=request_id != "")
            if wait is None:
                raise error
            time.sleep(wait)


def _positive(timeout: float) -> float:
    if math.isnan(timeout) or timeout <= 0:
        raise InvalidRequestError(
            f"a timeout of {timeout} s leaves no time; give seconds above 0, or math.inf for none"
        )
    return timeout
