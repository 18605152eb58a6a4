"""A lane of a server, and what it does on it: one call after another, as they come."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backwire_server.rpc.replicas import lane_frames as frames
from backwire_server.rpc.replicas.lane_context import Aborted, LaneContext
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.passing import CallerGone
from backwire_server.sessions.errors import CallTooLarge

Behaviour = Callable[[Iterator[bytes], Any], bytes]


class ServedLane:
    """A connection to a server that passes calls on, and the call on it. May be used by several threads at once.

    Attributes:
        connection: The connection.
        proven: Whether the other side has proved that it shares the directory.
        since: When it connected.
    """

    def __init__(self, connection: socket.socket, peer: str) -> None:
        """Is of a connection; `peer` names its other end, as gRPC does."""
        self.connection = connection
        self.proven = False
        self.since = time.monotonic()
        self._peer = peer
        self._context: LaneContext | None = None
        self._gone = False

    def do_next(self, behaviours: Mapping[str, Behaviour], most: int) -> None:
        """Does the next call, whose message may have so many bytes, and answers it; raises LaneBroken."""
        head, nbytes = frames.receive_head(self.connection)
        try:
            context = LaneContext(head, self._peer, self.break_off)
            behaviour = behaviours[head["method"]]
        except (LookupError, TypeError, ValueError, AttributeError):
            raise LaneBroken from None
        message = _Message(self.connection, nbytes, most)
        self._begin(context)
        try:
            try:
                answer = behaviour(message, context)
            except Aborted:
                answer = context.status
            told = frames.told_metadata(context.trailing)
            frames.send(self.connection, {"trailing": told, "failed": bool(context.status)}, answer)
        finally:
            self._end()
        message.drop()

    def hang_up(self) -> None:
        """Ends the call, since nobody waits for its answer, and any that comes yet."""
        self._gone = True
        context = self._context
        if context is not None:
            context.end()

    def end_late(self, most_unproven: float) -> None:
        """Ends the call if its deadline has passed, as gRPC does; the connection if so long nothing was proved."""
        if not self.proven and time.monotonic() - self.since > most_unproven:
            self.break_off()
        context = self._context
        if context is not None and context.time_remaining() <= 0:
            context.end()

    def break_off(self) -> None:
        """Ends the connection for both sides, whatever is done with it at the moment."""
        frames.shut(self.connection)

    def _begin(self, context: LaneContext) -> None:
        self._context = context
        if self._gone:
            context.end()

    def _end(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            context.end()


class _Message:
    """The message of a call, read from its lane when it is asked for; raises CallTooLarge, or CallerGone."""

    def __init__(self, connection: socket.socket, nbytes: int, most: int) -> None:
        self._connection = connection
        self._nbytes = nbytes
        self._most = most
        self._read = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._read:
            raise StopIteration
        if self._nbytes > self._most:
            raise CallTooLarge(
                f"the message has {self._nbytes:,} bytes, and this server takes {self._most:,}; send less at a time",
                quota="max_message_bytes",
            )
        self._read = True
        try:
            return frames.receive(self._connection, self._nbytes)
        except LaneBroken:
            raise CallerGone from None

    def drop(self) -> None:
        """Reads it where nobody asked for it, so that the next call can come; raises LaneBroken."""
        if not self._read:
            frames.drop(self._connection, self._nbytes)
