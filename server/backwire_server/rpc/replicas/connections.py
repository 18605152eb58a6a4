"""The connections by which a server passes calls on to others."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc.experimental import ChannelOptions

from backwire_api.threads import check_two_threads
from backwire_server.access.credentials import PeerCertificates
from backwire_server.access.files import Stamp
from backwire_server.config_parts import Access
from backwire_server.rpc.methods import SERVICE
from backwire_server.rpc.replicas.lanes import Lanes
from backwire_server.rpc.replicas.reach import Reach
from backwire_server.sessions.errors import Overloaded

MOST = 64
"""To how many servers connections are kept that no call uses: servers that start anew may have other addresses."""

UPLOADS = {method.name for method in SERVICE.methods if method.client_streaming}
"""The methods whose calls are of several messages."""

BETWEEN_SERVERS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # whoever calls repeats
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # as long may connecting take before it is tried anew
    ("grpc.keepalive_time_ms", 20_000),  # a server that vanished without a word is noticed while a call waits for it
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # else a minute; older releases of grpcio may read an answer 5 s late
)
"""The options of a connection to another server, of a threaded client or an asynchronous one."""

_OPTIONS = (
    *BETWEEN_SERVERS,
    (ChannelOptions.SingleThreadedUnaryStream, 1),  # answers come to the thread that waits for them
)


class Connection:
    """The way to a server at one address.

    Attributes:
        channel: What calls go through.
        lanes: The lanes beside it; None where the connection does not go by TCP, or is to have none.
        calls: How many there are at this moment.
        reach: Whether calls get through.
    """

    def __init__(self, address: str, certificates: PeerCertificates | None, secret: bytes | None) -> None:
        """Connects when the first call wants to; raises OSError for certificates that cannot be read.

        Lanes are opened by the secret of the directory.
        """
        self.channel = (
            grpc.insecure_channel(address, _OPTIONS)
            if certificates is None
            else grpc.secure_channel(address, certificates.credentials(), _OPTIONS)
        )
        self.lanes: Lanes | None = None
        if secret is not None and not address.startswith("unix:"):
            self.lanes = Lanes(address, secret, certificates)
        self.calls = 0
        self.reach = Reach(address)
        self._ways: dict[str, Any] = {}

    def way(self, method: str) -> Any:
        """Returns a method of the server, which takes and gives bytes; made once, as that takes its time.

        Raises Overloaded as `check_room`.
        """
        if method in UPLOADS:
            check_room()
        found = self._ways.get(method)
        if found is None:
            kind = self.channel.stream_stream if method in UPLOADS else self.channel.unary_stream
            found = self._ways[method] = kind(f"/{SERVICE.full_name}/{method}")
        return found

    def close(self) -> None:
        """Ends it, and calls in progress with it."""
        self.channel.close()
        if self.lanes is not None:
            self.lanes.close()


def check_room() -> None:
    """Raises Overloaded where no thread can be started for a stream of requests."""
    try:
        check_two_threads()
    except RuntimeError as error:
        raise Overloaded(f"the server has no thread for a stream: {error}; call again", retry_after=1.0) from error


class Connections:
    """Those to all other servers. May be used by several threads at once."""

    def __init__(self, access: Access, secret: bytes | None = None) -> None:
        """Connects as `access` has it: to servers that encrypt where this one does.

        By the secret of the directory they have lanes; without, they have none.
        """
        self._secret = secret
        self._certificates = PeerCertificates.of(access.tls_certificate, access.tls_key, access.peer_ca)
        self._mutex = threading.Lock()
        self._connections: OrderedDict[tuple[str, Stamp], Connection] = OrderedDict()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._connections)

    @contextmanager
    def to(self, address: str) -> Iterator[Connection]:
        """Gives the connection to a server, for one call; raises OSError for certificates that cannot be read.

        It is kept for the next. Closed are, as far as no call uses them, those to the same server with certificates of
        before, and the one that was used least lately where there are too many.
        """
        certificates = None if address.startswith("unix:") else self._certificates
        key = address, () if certificates is None else certificates.stamp
        idle: list[Connection] = []
        with self._mutex:
            found = self._connections.get(key)
            if found is None:
                found = Connection(address, certificates, self._secret)
                idle += self._superseded(address)
                self._connections[key] = found
            self._connections.move_to_end(key)
            found.calls += 1
            idle += self._spare()
        for each in idle:
            each.close()
        try:
            yield found
        finally:
            with self._mutex:
                found.calls -= 1

    def close(self) -> None:
        """Ends them, and calls in progress with them."""
        with self._mutex:
            for each in self._connections.values():
                each.close()

    def _superseded(self, address: str) -> list[Connection]:
        keys = [key for key, each in self._connections.items() if key[0] == address and not each.calls]
        return [self._connections.pop(key) for key in keys]

    def _spare(self) -> list[Connection]:
        if len(self._connections) <= MOST:
            return []
        key = next((key for key, each in self._connections.items() if not each.calls), None)
        return [] if key is None else [self._connections.pop(key)]
