"""Passes calls on to the server that has their session, where several share a directory, message by message, as bytes.

A call is passed on before anything is done for it here, with its metadata, its deadline and its cancellation, and ends
with what it is answered there. It is passed on once: a server that gets such a call does it or refuses it.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.reasons import DOMAIN, Reason
from backwire_server.config import Access
from backwire_server.messages import fields
from backwire_server.rpc.admission import Ticket
from backwire_server.rpc.branches import Branches
from backwire_server.rpc.call import Call
from backwire_server.rpc.connections import UPLOADS, Connections
from backwire_server.rpc.errors import Refused
from backwire_server.rpc.methods import SERVICE
from backwire_server.sessions.caller import Caller
from backwire_server.sessions.errors import DeadlineExceeded, NoWorker

Messages = Iterator[bytes]
Answered = Callable[[Messages], Messages]
Metadata = tuple[tuple[str, str | bytes], ...]

FORWARDED_KEY = "backwire-forwarded"
"""In the metadata of a call that was passed on: by which server. It is not passed on again."""

PIPELINE = "Pipeline"
SITED = {
    method.name
    for method in SERVICE.methods
    if (first := method.input_type.fields_by_number.get(1)) is not None and first.name == "session_id"
}
"""The methods whose calls are for a session, but for Pipeline, of which each request is."""


def here(_call: Call, _ticket: Ticket, messages: Messages) -> tuple[Messages, Messages | None]:
    """As `Forwarder.route`, of calls that are all done here."""
    return messages, None


class Forwarder:
    """The ways to the other servers. May be used by several threads at once."""

    def __init__(self, replica: str, elsewhere: Callable[[str, Caller], str], access: Access) -> None:
        """Passes on calls for sessions for which `elsewhere` tells an address; connects as `access` has it."""
        self._replica = replica
        self._elsewhere = elsewhere
        self._connections = Connections(access)

    def route(self, call: Call, ticket: Ticket, messages: Messages) -> tuple[Messages, Messages | None]:
        """Returns the messages of a call, of which the first may have been awaited, and its answers.

        There are none (None) for a call that is to be done here. They raise Refused for an error, and what else a call
        here may raise.
        """
        if _is_done_here(call):
            return messages, None
        first = next(messages, None)
        if first is None:
            return messages, None
        messages, session_id = chain([first], messages), fields.text(first, 1)
        address = self._elsewhere(session_id, call.scope.caller)
        if not address:
            return messages, None
        call.session = session_id[:8]
        tell = call.scope.context.set_trailing_metadata
        return messages, self._answers(address, call, ticket, messages, tell)

    def converse(self, call: Call, ticket: Ticket, messages: Messages, answered: Answered) -> Messages:
        """Yields the answers on a Pipeline: to requests for sessions of this server what `answered` returns.

        What another server told at the end is told to the client, when this one is done with the stream.
        """
        if _is_done_here(call):
            yield from answered(messages)
            call.tell_time()
            return
        told: list[Metadata] = []

        def begin(address: str, requests: Messages) -> Messages:
            return self._answers(address, call, ticket, requests, told.append) if address else answered(requests)

        def find(session_id: str) -> str:
            return self._elsewhere(session_id, call.scope.caller)

        yield from Branches(ticket, find, begin, call.limits.max_pass_bytes).run(messages)
        call.tell_time()
        for each in told[-1:]:
            call.scope.context.set_trailing_metadata(each)

    def close(self) -> None:
        """Ends the connections, and calls in progress with them."""
        self._connections.close()

    def _answers(
        self, address: str, call: Call, ticket: Ticket, messages: Messages, tell: Callable[[Metadata], object]
    ) -> Messages:
        with self._connections.to(address) as connection:
            yield from self._passed(connection.way(call.method), call, ticket, messages, tell)

    def _passed(
        self, method: Any, call: Call, ticket: Ticket, messages: Messages, tell: Callable[[Metadata], object]
    ) -> Messages:
        context = call.scope.context
        requests = _Requests(call, ticket, messages)
        terms: dict[str, Any] = {
            "timeout": call.scope.remaining(),
            "metadata": (*_ordinary(context.invocation_metadata() or ()), (FORWARDED_KEY, self._replica)),
        }
        passed: Any = (
            method(requests.read(lambda: passed.cancel()), **terms)
            if call.method in UPLOADS
            else method(requests.only(), **terms)
        )
        if not context.add_callback(passed.cancel):
            passed.cancel()  # the call is over already
        try:
            yield from passed
            tell(_ordinary(passed.trailing_metadata() or ()))
        except grpc.RpcError:
            if requests.problem is not None:
                raise requests.problem from None
            if not context.is_active():  # the client is gone, or another call had the place
                raise
            raise _refusal(passed) from None
        finally:
            passed.cancel()


class _Requests:
    """The messages of a call on their way; each counts for the call until the next is asked for.

    Attributes:
        problem: What ended them early, if anything did.
    """

    def __init__(self, call: Call, ticket: Ticket, messages: Messages) -> None:
        self.problem: Exception | None = None
        self._call = call
        self._ticket = ticket
        self._messages = messages

    def only(self) -> bytes:
        """Returns the message of a call that has one."""
        message = self._counted(next(self._messages))
        self._ticket.wait.busy()
        return message

    def read(self, cancel: Callable[[], object]) -> Messages:
        """Yields the messages, in a thread of gRPC's; where one cannot be taken, that is the problem, and cancels."""
        if self._call.method == PIPELINE:
            self._ticket.wait.idle()  # who waits for whom is known where it is answered
        try:
            for message in self._messages:
                yield self._counted(message)
                self._ticket.give(len(message))
            self._ticket.wait.busy()
        except Exception as error:
            self.problem = error
            cancel()

    def _counted(self, message: bytes) -> bytes:
        self._ticket.take(len(message))
        self._call.received(len(message))
        return message


def _is_done_here(call: Call) -> bool:
    """Tells whether a call is not passed on: its client goes to owners itself, or another server passed it on."""
    keys = {key for key, _ in call.scope.context.invocation_metadata() or ()}
    return FOLLOWS_KEY in keys or FORWARDED_KEY in keys


def _refusal(failed: Any) -> Exception:
    """Returns what a call that was passed on failed with: as it was told, or why nothing was told."""
    code = failed.code()
    status = rpc_status.from_call(failed)
    if status is not None:
        return Refused(status, _reason(status))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the replica that has the session answered; repeat the call")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
        return NoWorker(
            "the replica that has the session could not be reached, or ended the call before it was whole; call again",
            retry_after=0.1,
        )
    return Refused(status_pb2.Status(code=code.value[0], message=failed.details() or ""), Reason.INTERNAL)


def _reason(status: status_pb2.Status) -> Reason:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in set(Reason):
            return Reason(info.reason)
    return Reason.INTERNAL


def _ordinary(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Returns the metadata that is not gRPC's own."""
    return tuple((key, value) for key, value in metadata if not (key.startswith("grpc-") or key == "user-agent"))
