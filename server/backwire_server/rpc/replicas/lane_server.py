"""The lanes by which other servers pass calls on to this one: see `lanes`.

Each lane has a thread, which does its calls one after another, by the same behaviours as those of gRPC: they are known
by their metadata, admitted and counted alike. Another thread sees who goes away, and ends the call of a lane then.
"""

import contextlib
import errno
import hmac
import logging
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backwire_server.config import Access
from backwire_server.rpc.replicas import lane_frames as frames
from backwire_server.rpc.replicas.lane_context import Aborted, LaneContext
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.passing import CallerGone
from backwire_server.sessions.errors import CallTooLarge
from backwire_server.sessions.limits import Limits

_LOG = logging.getLogger("backwire.rpc")

Behaviour = Callable[[Iterator[bytes], Any], bytes]

MOST_LANES = 256
"""How many there may be at a time; others are refused, and their calls come by gRPC."""

HELLO_SECONDS = 10.0
"""How long who connects may take to send the key."""

IDLE_SECONDS = 300.0
"""After how long without a byte a lane is closed."""

LOOK_SECONDS = 1.0
"""How often it is looked for calls whose deadline has passed."""

SCARCE_SECONDS = 0.1
"""How long no lane is accepted once the system has had no descriptor, or no memory, for one."""

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class LaneServer:
    """Where a server has lanes, from `serve` until `close`.

    Attributes:
        told: The port and the key, as servers are told them that may open one.
    """

    def __init__(self, listen: str, max_message_bytes: int) -> None:
        """Listens on a free port of the host of `HOST:PORT`; raises OSError."""
        host = listen.rpartition(":")[0].strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()  # as gRPC does
        self._listener = socket.create_server((host, 0), family=family, dualstack_ipv6=both)
        self._listener.setblocking(False)
        self._key = secrets.token_bytes(frames.KEY_BYTES)
        self.told = f"{self._listener.getsockname()[1]}:{self._key.hex()}"
        self._most = max_message_bytes
        self._behaviours: Mapping[str, Behaviour] = {}
        self._mutex = threading.Lock()
        self._lanes: dict[int, _Lane] = {}
        self._closed = False
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._thread = threading.Thread(target=self._watch, name="backwire-lanes", daemon=True)

    def serve(self, behaviours: Mapping[str, Behaviour]) -> None:
        """Begins to do calls, by what their methods are done by."""
        self._behaviours = behaviours
        self._thread.start()

    def close(self) -> None:
        """Ends all lanes, and calls in progress with them."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            lanes = list(self._lanes.values())
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        for lane in lanes:
            lane.break_off()
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()

    def _watch(self) -> None:
        while not self._closed:
            ready = {descriptor for descriptor, _ in self._epoll.poll(LOOK_SECONDS if self._lanes else None)}
            for descriptor in ready - {self._listener.fileno()}:  # before others can have these numbers
                self._hang_up(descriptor)
            if self._listener.fileno() in ready:
                self._accept()
            self._end_late()

    def _end_late(self) -> None:
        with self._mutex:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.end_late()

    def _hang_up(self, descriptor: int) -> None:
        with self._mutex:
            lane = self._lanes.get(descriptor)
            if lane is not None:
                self._epoll.unregister(descriptor)
                del self._lanes[descriptor]
        if lane is not None:
            lane.hang_up()

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError as error:  # who came is gone again, or waits until there is room
            if error.errno in _SCARCE:
                time.sleep(SCARCE_SECONDS)
            return
        with self._mutex:
            if self._closed or len(self._lanes) >= MOST_LANES:
                connection.close()
                return
            version = 6 if connection.family == socket.AF_INET6 else 4
            lane = self._lanes[connection.fileno()] = _Lane(connection, f"ipv{version}:{address[0]}:{address[1]}")
            self._epoll.register(connection, select.EPOLLRDHUP)
        try:
            threading.Thread(target=self._run, args=(lane,), name="backwire-lane", daemon=True).start()
        except RuntimeError as error:
            _LOG.warning("a lane is refused, so that calls come by gRPC: %s", error)
            self._close(lane)

    def _run(self, lane: "_Lane") -> None:
        connection = lane.connection
        try:
            frames.prepare(connection, HELLO_SECONDS)
            hello = connection.recv(len(self._key))  # all at once, as it is sent: nobody is waited for byte by byte
            if hmac.compare_digest(hello, self._key):
                connection.settimeout(IDLE_SECONDS)
                connection.sendall(frames.ACCEPTED)
                while True:
                    self._do_next(lane)
        except (LaneBroken, OSError):
            pass
        finally:
            self._close(lane)

    def _close(self, lane: "_Lane") -> None:
        with self._mutex:
            if self._lanes.pop(lane.connection.fileno(), None) is not None:
                self._epoll.unregister(lane.connection)
            lane.connection.close()

    def _do_next(self, lane: "_Lane") -> None:
        head, nbytes = frames.receive_head(lane.connection)
        try:
            context = LaneContext(head, lane.peer, lane.break_off)
            behaviour = self._behaviours[head["method"]]
        except (LookupError, TypeError, ValueError, AttributeError):
            raise LaneBroken from None
        message = _Message(lane.connection, nbytes, self._most)
        lane.begin(context)
        try:
            try:
                answer = behaviour(message, context)
            except Aborted:
                answer = context.status
            told = frames.told_metadata(context.trailing)
            frames.send(lane.connection, {"trailing": told, "failed": bool(context.status)}, answer)
        finally:
            lane.end()
        message.drop()


def lanes_of(listen: str, access: Access, limits: Limits) -> LaneServer | None:
    """Returns the lanes of a server over TCP that does not encrypt; None for others, and where they cannot be had."""
    if listen.startswith("unix:") or access.tls_certificate is not None or not hasattr(select, "epoll"):
        return None
    try:
        return LaneServer(listen, limits.max_message_bytes)
    except OSError as error:
        _LOG.warning("there are no lanes on %s, so that calls are forwarded by gRPC: %s", listen, error)
        return None


class _Lane:
    """A connection, and the call on it."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self.connection = connection
        self.peer = peer
        self._context: LaneContext | None = None
        self._gone = False

    def begin(self, context: LaneContext) -> None:
        self._context = context
        if self._gone:
            context.end()

    def end(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            context.end()

    def hang_up(self) -> None:
        self._gone = True
        context = self._context
        if context is not None:
            context.end()

    def end_late(self) -> None:
        """Ends the call if its deadline has passed, as gRPC does."""
        context = self._context
        if context is not None and context.time_remaining() <= 0:
            context.end()

    def break_off(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


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
