"""What happens around every call of the service: who makes it, admission, decoding, errors, and what is told of it.

Each handler is replaced by one that reads raw messages from a stream, which on the wire is the same. So a call is
admitted before its request is read, a malformed request gets a typed error, and a client that opens calls and sends
nothing takes places among the calls in progress until others want them, and never all threads.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from backwire_api.wire import Framed
from backwire_server.messages.tensor_limits import check_tensors
from backwire_server.rpc.admission import PIPELINES, Ticket, quota_of
from backwire_server.rpc.call import Call, Reception
from backwire_server.rpc.pipeline_outcome import Incoming
from backwire_server.rpc.replicas.forwarding import SITED, Forwarder, stay
from backwire_server.sessions.errors import InvalidRequest

Messages = Iterator[bytes]

PASSING = {"ImportSession"}
"""Streams whose messages are not kept in memory once the next is asked for, and so count no longer then."""


class CallInterceptor(grpc.ServerInterceptor):
    """Wraps the methods of one service; others, such as health, pass untouched.

    `pools` has one for every kind of call, each larger than what is admitted, so that a refusal never waits.
    """

    def __init__(
        self,
        service: str,
        reception: Reception,
        pools: Mapping[str, ThreadPoolExecutor],
        forwarder: Forwarder | None = None,
    ) -> None:
        """Has calls passed on that the forwarder has a way for, if there is one."""
        self._forwarder = forwarder
        self._prefix = f"/{service}/"
        self._reception = reception
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

    def behaviour(self, method: str, handler: Any) -> Callable[[Messages, Any], bytes]:
        """Returns what does calls of a unary method that do not come by gRPC, from their messages and context."""
        found: Callable[[Messages, Any], bytes] = self._wrap(method, handler, tells_late=True).stream_unary
        return found

    def _wrap(self, method: str, handler: Any, *, tells_late: bool = False) -> Any:
        quota = quota_of(
            method, client_streaming=handler.request_streaming, server_streaming=handler.response_streaming
        )

        forwarder = self._forwarder
        follow = stay if forwarder is None or method not in SITED else forwarder.follow

        def respond(messages: Messages, context: grpc.ServicerContext) -> bytes:
            call = Call(method, context, self._reception, quota, tells_late=tells_late)
            with call as ticket:

                def answered(requests: Messages) -> Messages:
                    response = self._answer(handler, call, ticket, requests)
                    call.tell_time()
                    yield response

                (answer,) = follow(call, ticket, messages, answered)
                return call.answered(answer)

        def stream(messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(method, context, self._reception, quota)
            with call as ticket:

                def answered(requests: Messages) -> Messages:
                    request = _only(handler, call, ticket, requests)
                    yield from map(handler.response_serializer, handler.unary_stream(request, call.scope))
                    call.tell_time()

                yield from _sent(call, ticket, follow(call, ticket, messages, answered))

        def converse(messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(method, context, self._reception, quota)
            with call as ticket:

                def answered(requests: Messages) -> Messages:
                    metrics, rates = self._reception.metrics, self._reception.rates
                    incoming = Incoming(requests, ticket, metrics, rates, call.renew, call.span)
                    found: Messages = handler.stream_stream(incoming, call.scope)
                    return found

                if forwarder is not None:
                    yield from _sent(call, ticket, forwarder.converse(call, ticket, messages, answered))
                    return
                yield from _sent(call, ticket, answered(messages))
                call.tell_time()

        behaviour: Any = converse if quota == PIPELINES else stream if handler.response_streaming else respond
        behaviour.experimental_thread_pool = self._pools[quota]
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(behaviour)
        return grpc.stream_unary_rpc_method_handler(behaviour)

    def _answer(self, handler: Any, call: Call, ticket: Ticket, messages: Messages) -> bytes:
        if handler.request_streaming:
            read = _passing if call.method in PASSING else _keeping
            requests = read(handler, call, ticket, messages)
            response = handler.stream_unary(requests, call.scope)
        else:
            response = handler.unary_unary(_only(handler, call, ticket, messages), call.scope)
        data: bytes = handler.response_serializer(response)
        return data


def _sent(call: Call, ticket: Ticket, answers: Messages) -> Messages:
    for answer in answers:
        ticket.wait.send()
        yield call.answered(answer)
        ticket.wait.sent()


def _keeping(handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Iterator[Any]:
    yield from map(partial(_read, handler, call, ticket), messages)
    ticket.wait.busy()


def _passing(handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Iterator[Any]:
    for message in messages:
        yield _read(handler, call, ticket, message)
        ticket.give(len(message))
    ticket.wait.busy()


def _only(handler: Any, call: Call, ticket: Ticket, messages: Messages) -> Any:
    message = next(messages, None)
    if message is None:
        raise InvalidRequest("the call has no request message; send one")
    request = _read(handler, call, ticket, message)
    ticket.wait.busy()
    return request


def _read(handler: Any, call: Call, ticket: Ticket, message: bytes) -> Any:
    """Returns the request that a message holds, counted for the ticket; raises Overloaded or InvalidRequest."""
    ticket.take(len(message))
    call.received(len(message))
    try:
        request = handler.request_deserializer(message)
    except DecodeError as error:
        raise InvalidRequest(f"the request is no {call.method}Request: {error}; encode it by the contract") from None
    if isinstance(request, Framed):
        check_tensors(request.tensors, call.limits)
    if not call.session:
        call.name(request.message if isinstance(request, Framed) else request)
    return request
