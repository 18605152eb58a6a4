"""The lanes by which other servers pass calls on to this one: see `lanes`.

Each lane has a thread, which does its calls one after another, by the same behaviours as those of gRPC: they are known
by their metadata, admitted and counted alike. Another thread sees who goes away, and ends the call of a lane then, and
ends connections of strangers, who have not proved to share the directory: those that take long, and the oldest of many.
"""

import errno
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from backwire_server.access.encryption import Encryption
from backwire_server.config_parts import Access, Keeping
from backwire_server.config_values import ConfigError
from backwire_server.rpc.replicas import lane_frames as frames
from backwire_server.rpc.replicas import lane_greeting as greeting
from backwire_server.rpc.replicas.lane_calls import Behaviour, ServedLane
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.sessions.limits import Limits

_LOG = logging.getLogger("backwire.rpc")

MOST_LANES = 256
"""How many there may be at a time; others are refused, and their calls come by gRPC."""

MOST_UNPROVEN = 64
"""How many connections there may be of who has proved nothing yet; when another comes, the oldest is ended."""

PROOF_SECONDS = 2.0
"""How long who connects may take to prove that it shares the directory."""

IDLE_SECONDS = 300.0
"""After how long without a byte a lane is closed."""

LOOK_SECONDS = 1.0
"""How often it is looked for calls whose deadline has passed, and for who takes too long to prove anything."""

SCARCE_SECONDS = 0.1
"""How long no lane is accepted once the system has had no descriptor, or no memory, for one."""

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class LaneServer:
    """Where a server has lanes, from `serve` until `close`.

    Attributes:
        told: The port, as other servers are told it.
    """

    def __init__(
        self, host: str, port: int, max_message_bytes: int, secret: bytes, encryption: Encryption | None = None
    ) -> None:
        """Listens on a port of a host, a free one for 0; raises OSError.

        Lanes are for servers that know the secret of the data directory, and encrypted where there is `encryption`.
        """
        self._encryption = encryption
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()  # as gRPC does
        self._listener = socket.create_server((host, port), family=family, dualstack_ipv6=both)
        self._listener.setblocking(False)
        self.told = str(self._listener.getsockname()[1])
        self._secret = secret
        self._most = max_message_bytes
        self._behaviours: Mapping[str, Behaviour] = {}
        self._place = ""
        self._mutex = threading.Lock()
        self._lanes: dict[int, ServedLane] = {}
        self._closed = False
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._thread = threading.Thread(target=self._watch, name="backwire-lanes", daemon=True)

    def serve(self, behaviours: Mapping[str, Behaviour], address: str) -> None:
        """Begins to do calls, by what their methods are done by, of who wants to call the server at this address."""
        self._behaviours = behaviours
        self._place = greeting.place_of(address, self.told)
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
            lane.hang_up()  # which the thread may not come to any more
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
            lane.end_late(PROOF_SECONDS)

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
        version = 6 if connection.family == socket.AF_INET6 else 4
        try:
            if self._encryption is not None:
                connection = self._encryption.wrap(connection, greet=False)
            self._epoll.register(connection, select.EPOLLRDHUP)
        except OSError:  # who came is gone again, or the system has no room to watch it
            connection.close()
            return
        lane = ServedLane(connection, f"ipv{version}:{address[0]}:{address[1]}")
        with self._mutex:
            if self._closed:
                connection.close()
                return
            self._lanes[connection.fileno()] = lane
            unproven = [each for each in self._lanes.values() if not each.proven]
        for stranger in unproven[:-MOST_UNPROVEN]:  # who shares the directory proves it at once
            stranger.break_off()
        try:
            threading.Thread(target=self._run, args=(lane,), name="backwire-lane", daemon=True).start()
        except RuntimeError as error:
            _LOG.warning("a lane is refused, so that calls come by gRPC: %s", error)
            self._close(lane)

    def _run(self, lane: ServedLane) -> None:
        try:
            frames.prepare(lane.connection, PROOF_SECONDS)
            if isinstance(lane.connection, ssl.SSLSocket):
                lane.connection.do_handshake()
            greeting.admit(lane.connection, self._secret, self._place)
            self._prove(lane)
            frames.be_patient(lane.connection, IDLE_SECONDS)
            lane.connection.sendall(greeting.OPENED)
            while True:
                lane.do_next(self._behaviours, self._most)
        except (LaneBroken, OSError):
            pass
        except Exception:
            _LOG.exception("a lane ended, and the call on it")
        finally:
            self._close(lane)

    def _prove(self, lane: ServedLane) -> None:
        """Counts a connection as a lane; raises LaneBroken where there are as many as there may be."""
        with self._mutex:
            if sum(each.proven for each in self._lanes.values()) >= MOST_LANES:
                raise LaneBroken
            lane.proven = True

    def _close(self, lane: ServedLane) -> None:
        with self._mutex:
            if self._lanes.pop(lane.connection.fileno(), None) is not None:
                self._epoll.unregister(lane.connection)
            lane.connection.close()


def lanes_of(listen: str, keeping: Keeping, access: Access, limits: Limits, secret: bytes) -> LaneServer | None:
    """Returns the lanes of a server over TCP, which encrypts them if it encrypts.

    There are none (None) where there are to be none, or no free port can be had; raises OSError when that which was
    asked for cannot.
    """
    if not keeping.lanes or listen.startswith("unix:") or not hasattr(select, "epoll"):
        return None
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return LaneServer(host, keeping.lane_port, limits.max_message_bytes, secret, _encryption(access))
    except (OSError, ConfigError) as error:
        if keeping.lane_port:
            raise OSError(
                f"cannot have lanes on port {keeping.lane_port} of {host}: {error}; choose another --lane-port"
            ) from None
        _LOG.warning("there are no lanes on %s, so that calls are forwarded by gRPC: %s", listen, error)
        return None


def _encryption(access: Access) -> Encryption | None:
    if access.tls_certificate is None or access.tls_key is None:
        return None
    authorities = None if access.client_ca is None else Path(access.client_ca)
    return Encryption("lanes", Path(access.tls_certificate), Path(access.tls_key), authorities)
