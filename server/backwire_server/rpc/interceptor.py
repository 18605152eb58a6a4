"""What happens around every call of the service: admission, decoding, errors and the access log.

Each handler is replaced by one that reads raw messages from a stream, which on the wire is the same. So a call is
admitted before its request is read, a malformed request gets a typed error, and a client that opens calls and sends
nothing takes places among the calls in progress, but never all threads.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from backwire_server.rpc.admission import Admission, Ticket
from backwire_server.rpc.errors import status_of
from backwire_server.sessions.errors import Cancelled, InvalidRequest

_ACCESS = logging.getLogger("backwire.access")

Messages = Iterator[bytes]


class Call:
    """A call in progress, as the access log tells it."""

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self.method = method
        self.context = context
        self.reason = "OK"
        self.session = ""
        self.response_bytes = 0
        self._started = time.perf_counter()

    def log(self, request_bytes: int) -> None:
        """Writes the line of the access log."""
        data = {
            "method": self.method,
            "reason": self.reason,
            "milliseconds": round((time.perf_counter() - self._started) * 1e3, 3),
            "request_bytes": request_bytes,
            "response_bytes": self.response_bytes,
            "session": self.session,
            "peer": self.context.peer(),
        }
        _ACCESS.info("call", extra={"data": data})


class CallInterceptor(grpc.ServerInterceptor):
    """Wraps the methods of one service; others, such as health, pass untouched.

    Unary calls and streams run on pools of their own, each larger than what is admitted, so that a refusal never waits.
    """

    def __init__(
        self, service: str, admission: Admission, calls: ThreadPoolExecutor, streams: ThreadPoolExecutor
    ) -> None:
        self._prefix = f"/{service}/"
        self._admission = admission
        self._pools = {False: calls, True: streams}
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
        streaming = handler.request_streaming or handler.response_streaming

        def respond(messages: Messages, context: grpc.ServicerContext) -> bytes:
            with self._around(method, context, streaming) as (call, ticket):
                response = self._answer(handler, call, ticket, messages)
                call.response_bytes = len(response)
                return response

        def stream(messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._around(method, context, streaming) as (call, ticket):
                request = _only(self._requests(handler, call, ticket, messages))
                for response in handler.unary_stream(request, context):
                    data: bytes = handler.response_serializer(response)
                    call.response_bytes += len(data)
                    yield data

        behaviour: Any = stream if handler.response_streaming else respond
        behaviour.experimental_thread_pool = self._pools[streaming]
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(behaviour)
        return grpc.stream_unary_rpc_method_handler(behaviour)

    def _answer(self, handler: Any, call: Call, ticket: Ticket, messages: Messages) -> bytes:
        requests = self._requests(handler, call, ticket, messages)
        if handler.request_streaming:
            response = handler.stream_unary(requests, call.context)
        else:
            response = handler.unary_unary(_only(requests), call.context)
        data: bytes = handler.response_serializer(response)
        return data

    def _requests(self, handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Iterator[Any]:
        for message in messages:
            ticket.take(len(message))
            try:
                request = handler.request_deserializer(message)
            except DecodeError as error:
                raise InvalidRequest(
                    f"the request is no {call.method}Request: {error}; encode it by the contract"
                ) from None
            call.session = call.session or getattr(request, "session_id", "")[:8]
            yield request

    @contextmanager
    def _around(self, method: str, context: grpc.ServicerContext, streaming: bool) -> Iterator[tuple[Call, Ticket]]:
        call = Call(method, context)
        request_bytes = 0
        try:
            with self._admission.enter(streaming=streaming) as ticket:
                if not context.add_callback(ticket.finish):
                    ticket.finish()  # the call is over already
                try:
                    yield call, ticket
                finally:
                    request_bytes = ticket.request_bytes
        except Exception as error:
            gone = isinstance(error, grpc.RpcError)  # the client went while its messages were read
            status, call.reason = status_of(Cancelled("the call was cancelled") if gone else error)
            context.abort_with_status(rpc_status.to_status(status))
        finally:
            if _ACCESS.isEnabledFor(logging.INFO):
                call.log(request_bytes)


def _only(requests: Iterator[Any]) -> Any:
    request = next(requests, None)
    if request is None:
        raise InvalidRequest("the call has no request message; send one")
    return request
