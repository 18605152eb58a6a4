"""A TCP proxy between clients and a server, which cuts and delays connections where a script says so."""

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from tests.faults.connection_faults import Answers, Fault, Kind, Script, Way

CHUNK_BYTES = 1 << 16
CONNECT_SECONDS = 60.0
RETRY_SECONDS = 0.005


class Proxy:
    """Passes connections on to a server, and does what the script says. A context manager.

    While the server does not listen, connections are kept waiting for it.

    Attributes:
        address: What clients connect to.
        connections: How many there were.
        happened: How often each kind of fault did.
    """

    def __init__(self, target: str, faults: Iterable[Fault] = (), kill: Callable[[], None] = lambda: None) -> None:
        """Begins; `target` is `HOST:PORT`, and `kill` kills the server."""
        host, _, port = target.rpartition(":")
        self.connections = 0
        self.happened: Counter[Kind] = Counter()
        self._target = host, int(port)
        self._script = Script(faults)
        self._kill = kill
        self._closing = False
        self._mutex = threading.Lock()
        self._links: set[_Link] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    @property
    def settled(self) -> bool:
        """Whether all faults have happened."""
        return self._script.over

    def cut(self) -> None:
        """Cuts all connections; new ones are passed on."""
        for link in list(self._links):
            link.cut()

    def close(self) -> None:
        """Cuts all connections and ends. Closing again does nothing."""
        if self._closing:
            return
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[:1]:
            thread.join()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client,), name="proxy-link")
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            server = self._connected()
            if server is None:
                return
            with server:
                link = _Link(client, server)
                self._links.add(link)
                if self._closing:  # and all links that were known are cut
                    link.cut()
                down = threading.Thread(target=self._pump, args=(link, Way.DOWN), name="proxy-down")
                down.start()
                self._pump(link, Way.UP)
                down.join()
                self._links.discard(link)

    def _connected(self) -> socket.socket | None:
        """Waits for the server, and returns a connection to it; None when the proxy ends before there is one."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self._closing and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                return socket.create_connection(self._target)
            time.sleep(RETRY_SECONDS)
        return None

    def _pump(self, link: "_Link", way: Way) -> None:
        source, sink = link.ends(way)
        answers = Answers()
        with contextlib.suppress(OSError):
            while (data := source.recv(CHUNK_BYTES)) and not link.broken:
                places = answers.within(data) if way is Way.DOWN else []
                begin, fault = self._script.meet(way, 0, len(data), places)
                sink.sendall(data[:begin])
                while fault is not None:
                    self._do(fault, link)
                    end, fault = self._script.meet(way, begin, len(data), places)
                    sink.sendall(data[begin:end])
                    begin = end
        link.cut()

    def _do(self, fault: Fault, link: "_Link") -> None:
        """Does what a fault says; raises ConnectionAbortedError when the connection ends by it."""
        with self._mutex:
            self.happened[fault.kind] += 1
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        elif fault.kind == "kill":
            self._kill()
        else:
            link.cut(reset=fault.reset)
            raise ConnectionAbortedError(fault)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Link:
    """A connection of a client, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.broken = False
        self._client, self._server = client, server
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ends(self, way: Way) -> tuple[socket.socket, socket.socket]:
        return (self._client, self._server) if way is Way.UP else (self._server, self._client)

    def cut(self, *, reset: bool = False) -> None:
        """Ends both connections, if so wanted by a reset, which comes when they are closed."""
        self.broken = True
        for each in (self._client, self._server):
            with contextlib.suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
