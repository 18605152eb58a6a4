"""Lanes to another server: connections that stand, on each of which one call after another is passed on.

A call on a lane costs a fifth of what gRPC takes for one. A server tells where it has them in the answer to a call that
was passed on to it by gRPC. They are opened in the background, so a call never waits for one: where none is free, or
none can be had, it goes by gRPC.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from backwire_server.access.credentials import PeerCertificates
from backwire_server.rpc.replicas import lane_frames as frames
from backwire_server.rpc.replicas.lane_frames import Head, LaneBroken, Metadata
from backwire_server.rpc.replicas.lane_greeting import open_lane, place_of

LANES_KEY = "backwire-lanes"
"""In the metadata of an answer to a server: the port on which the other has lanes."""

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 60.0
"""After how long lanes are tried anew to a server that could not be reached by one."""

SPARE_SECONDS = 60.0
"""After how long a lane is closed that no call used, when another is given back."""

LOOK_SECONDS = 0.5
"""How often it is looked whether a server that does not answer lives, and has the session still."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call on a lane was answered: a message, or, where it `failed`, the bytes of a google.rpc.Status."""

    message: bytes
    trailing: Metadata
    failed: bool


class Lane:
    """One connection, for one call at a time.

    Attributes:
        whole: Whether all that was sent was answered.
        used: When the last call ended.
    """

    def __init__(self, address: str, told: str, secret: bytes, encryption: ssl.SSLContext | None = None) -> None:
        """Connects to the server of an address, on the port that it told; raises OSError, ValueError and LaneBroken.

        It must know the secret of the directory, too. With `encryption` the lane encrypts, and the other side must show
        that it is the host.
        """
        host = address.rpartition(":")[0].strip("[]")
        self._connection = socket.create_connection((host, int(told)), CONNECT_SECONDS)
        self._mutex = threading.Lock()
        self._call = 0
        self._busy = False
        self.whole = True
        self.used = time.monotonic()
        try:
            frames.prepare(self._connection, CONNECT_SECONDS)
            if encryption is not None:
                self._connection = encryption.wrap_socket(self._connection, server_hostname=host)
            open_lane(self._connection, secret, place_of(address, told))
            frames.be_patient(self._connection, LOOK_SECONDS)
        except BaseException:
            self._connection.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)

    @property
    def stands(self) -> bool:
        """Whether the other side has not closed it, as far as is known here."""
        return not self._poll.poll(0)  # between calls nothing is to come but the end

    def begin(self) -> Callable[[], None]:
        """Begins a call; returns what cancels it from any thread, until `end`: the lane breaks."""
        with self._mutex:
            self._busy, self.whole = True, False
            self._call += 1
            number = self._call

        def cancel() -> None:
            with self._mutex:
                if self._busy and number == self._call:
                    frames.shut(self._connection)

        return cancel

    def exchange(self, head: Head, message: bytes, look: frames.Look) -> Answer:
        """Returns what the call is answered; raises LaneBroken, also where `look` does, which is called meanwhile."""
        frames.send(self._connection, head, message, look)
        told, nbytes = frames.receive_head(self._connection, look)
        answer = frames.receive(self._connection, nbytes, look)
        self.whole = True
        try:
            return Answer(answer, frames.metadata_of(told["trailing"]), bool(told["failed"]))
        except (LookupError, TypeError, ValueError, AttributeError):
            raise LaneBroken from None

    def end(self) -> None:
        """Ends the call, which cannot be cancelled any more."""
        with self._mutex:
            self._busy = False
        self.used = time.monotonic()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


class Lanes:
    """The lanes to one server. May be used by several threads at once."""

    def __init__(self, address: str, secret: bytes, certificates: PeerCertificates | None = None) -> None:
        """They lead to the server of an address, which knows the secret, too; there are none before `learn`.

        They encrypt where there are certificates.
        """
        self._certificates = certificates
        self._secret = secret
        self._address = address
        self._told = ""
        self._mutex = threading.Lock()
        self._idle: list[Lane] = []
        self._opening = self._closed = False
        self._retry = 0.0

    def learn(self, told: str) -> None:
        """Takes what the server says of its lanes, the value of LANES_KEY."""
        with self._mutex:
            if told != self._told:
                self._told, self._retry = told, 0.0

    def take(self) -> Lane | None:
        """Returns a lane that no call uses, for `give`; None where there is none yet."""
        with self._mutex:
            while self._idle:
                lane = self._idle.pop()
                if lane.stands:
                    return lane
                lane.close()
            wanted = self._told and not (self._opening or self._closed) and time.monotonic() >= self._retry
            if wanted:
                self._opening = True
        if wanted:
            told = self._told
            try:
                threading.Thread(target=self._open, args=(told,), name="backwire-lane", daemon=True).start()
            except RuntimeError:  # there are no threads left
                self._opened(told, None)
        return None

    def give(self, lane: Lane) -> None:
        """Takes back a lane; it is closed when its call was not answered."""
        with self._mutex:
            spare = lane
            if not self._closed and lane.whole:
                self._idle.append(lane)
                if lane.used - self._idle[0].used < SPARE_SECONDS:
                    return
                spare = self._idle.pop(0)
        spare.close()

    def close(self) -> None:
        """Closes those that no call uses; others when they are given back."""
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()

    def _open(self, told: str) -> None:
        lane = None
        with contextlib.suppress(OSError, ValueError, OverflowError, LaneBroken):  # no way there, as through a firewall
            encryption = None if self._certificates is None else self._certificates.context()
            lane = Lane(self._address, told, self._secret, encryption)
        self._opened(told, lane)

    def _opened(self, told: str, lane: Lane | None) -> None:
        with self._mutex:
            self._opening = False
            if lane is None and told == self._told:
                self._retry = time.monotonic() + RETRY_SECONDS
        if lane is not None:
            self.give(lane)
