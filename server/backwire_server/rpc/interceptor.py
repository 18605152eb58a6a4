"""What happens around every call of the service: admission, decoding, errors and the access log.

Each handler is replaced by one that reads raw messages from a stream, which on the wire is the same. So a call is
admitted before its request is read, a malformed request gets a typed error, and a client that opens calls and sends
nothing takes places among the calls in progress, but never all threads.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from backwire_api.wire import Framed
from backwire_server.rpc.admission import CALLS, PIPELINES, STREAMS, Admission, Ticket
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.pipeline import Incoming
from backwire_server.sessions.errors import Cancelled, InvalidRequest

_ACCESS = logging.getLogger("backwire.access")

Messages = Iterator[bytes]

PASSING = {"ImportSession"}
"""Streams whose messages are not kept in memory once the next is asked for, and so count no longer then."""


class Call:
    """A call in progress, as a context: admitted in its beginning, its failure told and its line logged at its end."""

    __slots__ = (
        "_admission",
        "_quota",
        "_reason",
        "_started",
        "_ticket",
        "context",
        "method",
        "response_bytes",
        "session",
    )

    def __init__(self, method: str, context: grpc.ServicerContext, admission: Admission, quota: str) -> None:
        self.method = method
        self.context = context
        self.session = ""
        self.response_bytes = 0
        self._reason = "OK"
        self._admission = admission
        self._quota = quota
        self._started = time.perf_counter()

    def __enter__(self) -> Ticket:
        try:
            self._ticket = self._admission.enter(self._quota)
        except Exception as error:
            self._end(error, 0)
        if not self.context.add_callback(self._ticket.finish):
            self._ticket.finish()  # the call is over already
        return self._ticket

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        request_bytes = self._ticket.request_bytes
        self._ticket.leave()
        self._end(error, request_bytes)

    def _end(self, error: BaseException | None, request_bytes: int) -> None:
        try:
            if isinstance(error, Exception):
                gone = isinstance(error, grpc.RpcError)  # the client went while its messages were read
                status, self._reason = status_of(Cancelled("the call was cancelled") if gone else error)
                self.context.abort_with_status(rpc_status.to_status(status))
        finally:
            if _ACCESS.isEnabledFor(logging.INFO):
                self._log(request_bytes)

    def _log(self, request_bytes: int) -> None:
        data = {
            "method": self.method,
            "reason": self._reason,
            "milliseconds": round((time.perf_counter() - self._started) * 1e3, 3),
            "request_bytes": request_bytes,
            "response_bytes": self.response_bytes,
            "session": self.session,
            "peer": self.context.peer(),
        }
        _ACCESS.info("call", extra={"data": data})


class CallInterceptor(grpc.ServerInterceptor):
    """Wraps the methods of one service; others, such as health, pass untouched.

    `pools` has one for every kind of call, each larger than what is admitted, so that a refusal never waits.
    """

    def __init__(self, service: str, admission: Admission, pools: Mapping[str, ThreadPoolExecutor]) -> None:
        self._prefix = f"/{service}/"
        self._admission = admission
        self._pools = pools
        self._wrapped: dict[str, Any] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Returns the handler of the method, wrapped; None when there is no such method."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = continuation(handler_call_details)
            if handler is None or not method.startswith(self._prefix):
                return handler
            self._wrapped[method] = self._wrap(method.removeprefix(self._prefix), handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Any) -> Any:
        quota = _quota(handler)

        def respond(messages: Messages, context: grpc.ServicerContext) -> bytes:
            call = Call(method, context, self._admission, quota)
            with call as ticket:
                response = self._answer(handler, call, ticket, messages)
                call.response_bytes = len(response)
                return response

        def stream(messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(method, context, self._admission, quota)
            with call as ticket:
                request = _only(handler, call, ticket, messages)
                for response in handler.unary_stream(request, context):
                    data: bytes = handler.response_serializer(response)
                    call.response_bytes += len(data)
                    yield data

        def converse(messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(method, context, self._admission, quota)
            with call as ticket:
                for data in handler.stream_stream(Incoming(messages, ticket), context):
                    call.response_bytes += len(data)
                    yield data

        behaviour: Any = {CALLS: respond, PIPELINES: converse}.get(quota) or (
            stream if handler.response_streaming else respond
        )
        behaviour.experimental_thread_pool = self._pools[quota]
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(behaviour)
        return grpc.stream_unary_rpc_method_handler(behaviour)

    def _answer(self, handler: Any, call: Call, ticket: Ticket, messages: Messages) -> bytes:
        if handler.request_streaming:
            read = _passing if call.method in PASSING else _keeping
            requests = read(handler, call, ticket, messages)
            response = handler.stream_unary(requests, call.context)
        else:
            response = handler.unary_unary(_only(handler, call, ticket, messages), call.context)
        data: bytes = handler.response_serializer(response)
        return data


def _keeping(handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Iterator[Any]:
    return map(partial(_read, handler, call, ticket), messages)


def _passing(handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Iterator[Any]:
    for message in messages:
        yield _read(handler, call, ticket, message)
        ticket.give(len(message))


def _only(handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Any:
    message = next(messages, None)
    if message is None:
        raise InvalidRequest("the call has no request message; send one")
    return _read(handler, call, ticket, message)


def _read(handler: Any, call: Call, ticket: Ticket, message: bytes) -> Any:
    """Returns the request that a message holds, counted for the ticket; raises Overloaded or InvalidRequest."""
    ticket.take(len(message))
    try:
        request = handler.request_deserializer(message)
    except DecodeError as error:
        raise InvalidRequest(f"the request is no {call.method}Request: {error}; encode it by the contract") from None
    if not call.session:
        plain = request.message if isinstance(request, Framed) else request
        call.session = getattr(plain, "session_id", "")[:8]
    return request


def _quota(handler: Any) -> str:
    if handler.request_streaming and handler.response_streaming:
        return PIPELINES
    return STREAMS if handler.request_streaming or handler.response_streaming else CALLS
