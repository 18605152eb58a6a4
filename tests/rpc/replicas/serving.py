"""Servers that share a directory, and lanes between them."""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tests.access.conftest import Authority
from tests.rpc.conftest import Api

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Access, Capacity, Keeping
from backwire_server.rpc.replicas import lane_greeting
from backwire_server.rpc.replicas.lanes import Lane, Lanes
from backwire_server.rpc.server import Server
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.info import Home
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import CallStop
from backwire_server.sessions.training.trainer import Trainer

LEASE = 3_600.0
OPEN = Access()
X = {"x": tensors.encode(np.asarray([1.0, -2.0, 4.0]))}
SOME = Limits(max_message_bytes=8 << 20)

Until = Callable[[Callable[[], Any]], None]


def started(
    directory: Path,
    name: str,
    access: Access = OPEN,
    listen: str = "127.0.0.1:0",
    limits: Limits = SOME,
    **keeping_so: Any,
) -> Server:
    directory.mkdir(exist_ok=True)
    keeping = Keeping(str(directory), shared=True, lease=LEASE, **keeping_so)
    return Server(listen, limits, Capacity(), Home(replica=name), keeping, access)


def encrypting(directory: Path) -> tuple[Access, grpc.ChannelCredentials]:
    """Who may come in where an authority of the servers' own vouches for all, and what a client comes in with."""
    authority = Authority("ours")
    pair, ca = authority.issue("replicas", host="localhost"), directory / "ca.crt"
    paths = directory / "tls.crt", directory / "tls.key"
    for path, content in zip((*paths, ca), (pair.certificate, pair.key, authority.certificate), strict=True):
        path.write_bytes(content)
    access = Access(str(paths[0]), str(paths[1]), client_ca=str(ca), peer_ca=str(ca))
    return access, grpc.ssl_channel_credentials(authority.certificate, pair.key, pair.certificate)


def cut_off(server: Server) -> None:
    """Ends all that leads to a server, as if it were killed: it has not let go of its sessions."""
    server._server.stop(None).wait()
    if server._neighbours.lanes is not None:
        server._neighbours.lanes.close()


def lanes_between(other: Api, owner: Api) -> Lanes | None:
    """Returns the lanes of a server to another."""
    assert other.server._neighbours.forwarder is not None
    with other.server._neighbours.forwarder._connections.to(owner.server.address) as connection:
        return connection.lanes


def lane_to(owner: Api, secret: bytes | None = None, encryption: ssl.SSLContext | None = None) -> Lane:
    """Returns a new lane to a server, by the secret of its directory unless another is given."""
    return Lane(owner.server.address, str(lane_port(owner)), secret or secret_of(owner), encryption)


def lane_port(owner: Api) -> int:
    """Returns the port on which a server has lanes."""
    assert owner.server._neighbours.lanes is not None
    return int(owner.server._neighbours.lanes.told)


def place_of(owner: Api) -> str:
    """Returns what is proved of where a server has lanes."""
    return lane_greeting.place_of(owner.server.address, str(lane_port(owner)))


def secret_of(owner: Api) -> bytes:
    """Returns the secret of the directory of a server."""
    assert owner.server._neighbours.lanes is not None
    return owner.server._neighbours.lanes._secret


def open_lane(other: Api, owner: Api, until: Until) -> Lanes:
    """Passes a call on, and another, until there is a lane for the next."""
    session = owner.create()
    other.train(session)
    lanes = lanes_between(other, owner)
    assert lanes is not None
    other.train(session)
    until(lambda: lanes._idle)
    owner.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))
    return lanes


class Held:
    """Holds each TrainStep, when it is about to compute, until it is to stop, or `stopped` is set."""

    def __init__(self, until: Until) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()
        self._until = until

    def train(self, owner: Trainer, call: TrainCall, ready: Callable[[], None], stop: CallStop) -> object:
        self.begun.set()
        self._until(lambda: stop.wanted or self.stopped.is_set())
        self.stopped.set()
        return Trainer.train(owner, call, ready, stop)
