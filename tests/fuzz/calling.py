"""Calls the service as gRPC does, but without a socket: in one thread, so that coverage tells what an input made it do.

Pipelines have threads of their own here too.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

from google.protobuf.message import Message
from tests.graphs import dot_graph

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Capacity
from backwire_server.rpc import server
from backwire_server.rpc.methods import SERVICE
from backwire_server.sessions.limits import Limits, MiB

SMALL = Limits(
    max_graph_nodes=2_000,
    max_parameter_bytes=MiB,
    max_pass_bytes=4 * MiB,
    max_total_bytes=64 * MiB,
    max_passes=4,
)


class Refused(Exception):
    """A call was answered with an error that calls may end with."""


class Context:
    """What gRPC tells a method of its call."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self.time_remaining = lambda: 5.0
        self.is_active = lambda: True
        self.peer = lambda: "fuzz"
        self.invocation_metadata = tuple
        self.set_trailing_metadata = id
        self.cancel = self.end

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Keeps what `end` calls."""
        self._callbacks.append(callback)
        return True

    def abort_with_status(self, status: Any) -> None:
        """Raises Refused."""
        raise Refused(f"{status.code}: {status.details}")

    def end(self) -> None:
        """Tells the call that it is over."""
        for callback in self._callbacks:
            callback()


class _Unforeseen(logging.Handler):
    """Keeps the errors that calls were told of as INTERNAL."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


class Service:
    """A server as it is, but for its socket, with a session that no input may change."""

    def __init__(self) -> None:
        with mock.patch("grpc.server") as made:
            self._server = server.Server(f"unix:{tempfile.mkdtemp(prefix='backwire-fuzz-')}/socket", SMALL, Capacity())
        [self._interceptor] = made.call_args.kwargs["interceptors"]
        [self._methods] = made.return_value.add_generic_rpc_handlers.call_args_list[0].args[0]
        self._log = _Unforeseen()
        logging.getLogger("backwire.errors").addHandler(self._log)
        self._bystander = self.create()
        self._state = self._look()

    def call(self, method: str, messages: Iterable[bytes]) -> list[bytes]:
        """Returns the answers; raises Refused, or an error that no call may end with."""
        details: Any = SimpleNamespace(method=f"/{SERVICE.full_name}/{method}", invocation_metadata=())
        handler: Any = self._interceptor.intercept_service(self._methods.service, details)
        context = Context()
        try:
            if handler.response_streaming:
                return list(handler.stream_stream(iter(messages), context))
            return [handler.stream_unary(iter(messages), context)]
        finally:
            context.end()
            if self._log.errors:
                raise self._log.errors.pop()

    def ask(self, method: str, request: Message) -> list[bytes]:
        """As `call`, with a message."""
        return self.call(method, [request.SerializeToString()])

    def create(self, **changes: Any) -> str:
        """Returns the id of a new session."""
        [answer] = self.ask("CreateSession", pb.CreateSessionRequest(**{"graph": dot_graph(), **changes}))
        return pb.CreateSessionResponse.FromString(answer).session.session_id

    def check(self) -> None:
        """Sees that what other sessions are and what calls hold is as it was before."""
        assert self._look() == self._state, "an input changed the session of another"
        admission = self._server.admission
        held = (admission._request_bytes, *admission._in_progress.values())
        assert not any(held), "a call did not give back what it took"

    def clean(self) -> None:
        """Deletes all sessions but that one."""
        while self._server.census[0] > 1:
            [answer] = self.ask("ListSessions", pb.ListSessionsRequest())
            for session in pb.ListSessionsResponse.FromString(answer).sessions:
                if session.session_id != self._bystander:
                    self.ask("DeleteSession", pb.DeleteSessionRequest(session_id=session.session_id))

    def _look(self) -> str:
        request = pb.GetSessionRequest(session_id=self._bystander, digest=True)
        [answer] = self.ask("GetSession", request)
        return pb.GetSessionResponse.FromString(answer).digest


@cache
def service() -> Service:
    """Returns the one service of this process."""
    return Service()
