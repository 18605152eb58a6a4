"""How one call is passed on to another server, by gRPC or on a lane, and ends as it ended there."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from backwire_api.reasons import DOMAIN, Reason
from backwire_server.rpc.admission import Ticket
from backwire_server.rpc.call import Call
from backwire_server.rpc.errors import Refused
from backwire_server.rpc.replicas.connections import UPLOADS, Connection
from backwire_server.rpc.replicas.lane_frames import LaneBroken, Look, Metadata, told_metadata
from backwire_server.rpc.replicas.lanes import LANES_KEY, Lane
from backwire_server.rpc.replicas.reach import Reach
from backwire_server.rpc.replicas.watching import Cancel
from backwire_server.sessions.errors import DeadlineExceeded, NoWorker

Messages = Iterator[bytes]
Tell = Callable[[Metadata], object]
Watched = Callable[[Cancel], AbstractContextManager[None]]

FORWARDED_KEY = "backwire-forwarded"
"""In the metadata of a call that was passed on: by which server. It is not passed on again."""

PIPELINE = "Pipeline"


class CallerGone(grpc.RpcError):
    """Who sent a call, a client or the server that passed it on, is gone; or another call had its place."""


class Passing:
    """A call on its way. What it is answered is raised where that is an error, as Refused or an error of sessions."""

    def __init__(self, call: Call, ticket: Ticket, messages: Messages, replica: str, tell: Tell) -> None:
        """Is of the messages of a call to the server `replica`; `tell` is given what came with the answer."""
        self._call = call
        self._requests = _Requests(call, ticket, messages)
        self._replica = replica
        self._tell = tell

    def by_grpc(self, connection: Connection, watched: Watched) -> Messages:
        """Yields the answers to a call of any kind; `watched` is given what cancels it, for as long as it lasts."""
        context = self._call.scope.context
        requests, method = self._requests, connection.way(self._call.method)
        terms: dict[str, Any] = {"timeout": self._call.scope.remaining(), "metadata": self._metadata()}
        passed: Any = (
            method(requests.read(lambda: passed.cancel()), **terms)
            if self._call.method in UPLOADS
            else method(requests.only(), **terms)
        )
        if not context.add_callback(passed.cancel):
            passed.cancel()  # the call is over already
        try:
            with watched(passed.cancel):
                yield from passed
            trailing = passed.trailing_metadata() or ()
            if connection.lanes is not None and (told := dict(trailing).get(LANES_KEY)):
                connection.lanes.learn(str(told))
            connection.reach.reached()
            self._tell(_ordinary(trailing))
        except grpc.RpcError:
            if requests.problem is not None:
                raise requests.problem from None
            if not context.is_active():  # the client is gone, or another call had the place
                raise
            raise _refusal(passed, connection.reach) from None
        finally:
            passed.cancel()

    def by_lane(self, lane: Lane, look: Look) -> bytes:
        """Returns the answer to a unary call; for `look` see Lane. A lane that raises is broken."""
        context = self._call.scope.context
        message = self._requests.only()
        head = {
            "method": self._call.method,
            "timeout": self._call.scope.remaining(),
            "metadata": told_metadata(self._metadata()),
        }
        cancel = lane.begin()
        if not context.add_callback(cancel):
            cancel()  # the call is over already
        try:
            answer = lane.exchange(head, message, look)
        except LaneBroken:
            if not context.is_active():
                raise CallerGone from None
            raise _lost() from None
        finally:
            lane.end()
        if answer.failed:
            status = status_pb2.Status.FromString(answer.message)
            raise Refused(status, _reason(status))
        self._tell(_ordinary(answer.trailing))
        return answer.message

    def _metadata(self) -> Metadata:
        came = self._call.scope.context.invocation_metadata() or ()
        return (*_ordinary(came), (FORWARDED_KEY, self._replica))


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


def _refusal(failed: Any, reach: Reach) -> Exception:
    """Returns what a call that was passed on failed with: as it was told, or why nothing was told."""
    code = failed.code()
    status = rpc_status.from_call(failed)
    if status is not None:
        reach.reached()
        return Refused(status, _reason(status))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the replica that has the session answered; repeat the call")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
        return _lost(reach.failed(failed.details() or code.name))
    return Refused(status_pb2.Status(code=code.value[0], message=failed.details() or ""), Reason.INTERNAL)


def _lost(besides: str = "") -> NoWorker:
    return NoWorker(
        "the replica that has the session could not be reached, or ended the call before it was whole; call again"
        + besides,
        retry_after=0.1,
    )


def _reason(status: status_pb2.Status) -> Reason:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in set(Reason):
            return Reason(info.reason)
    return Reason.INTERNAL


def _ordinary(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Returns the metadata that is neither gRPC's own nor for servers alone."""
    return tuple(
        (key, value) for key, value in metadata if not (key.startswith("grpc-") or key in ("user-agent", LANES_KEY))
    )
