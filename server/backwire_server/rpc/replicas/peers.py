"""The other servers that share the data directory, as those who compute parts of batches for this one."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import grpc

from backwire_server.parallel.shift import Remote
from backwire_server.rpc.replicas.connections import Connections
from backwire_server.rpc.replicas.peer_remote import PeerRemote

LOOK_SECONDS = 1.0
"""Between looks at which servers there are."""

STUCK_SECONDS = 1.0
"""After how long without an answer nothing else is asked of a server."""

LOST_SECONDS = 10.0
"""After how long a server that has not answered counts as lost."""

LEAST_REST, MOST_REST = 5.0, 60.0
"""How many seconds a server is not asked that was lost or is full, and one that will not compute for this one."""

LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
"""What a server ends a stream with that will take another in a while."""

_LOG = logging.getLogger("backwire.parallel")


class Peers:
    """Implements `parallel.crew.Elsewhere`."""

    def __init__(
        self,
        most: int,
        addresses: Callable[[], Sequence[str]],
        secret: bytes,
        connections: Connections,
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        """Has at most so many parts computed at a time, by the servers that `addresses` tells; it may raise OSError.

        They must know the same secret, and compute with the same `environment`.
        """
        self._most, self._addresses, self._connections, self._environment = most, addresses, connections, environment
        self._secret = secret
        self._mutex = threading.Lock()
        self._all: list[PeerRemote] = []
        self._idle: list[PeerRemote] = []
        self._found: Sequence[str] = ()
        self._looked = -LOOK_SECONDS
        self._rest: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._sent = self._received = 0

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes of arrays and definitions were sent and received."""
        return self._sent, self._received

    def lend(self, count: int) -> list[Remote]:
        """Returns at most so many streams, of which those that are new are not ready yet."""
        self._forget_ended()
        self._end_hung()
        addresses = self._look()
        failed: tuple[str, str] | None = None
        with self._mutex:
            stuck = [remote for remote in self._idle if remote.busy and remote.seconds > STUCK_SECONDS]
            able = sorted((each for each in self._idle if each not in stuck), key=lambda each: not each.willing)
            lent, self._idle = able[:count], [*able[count:], *stuck]
            while len(lent) < count and len(self._all) < self._most:
                address = self._least_used(addresses, {remote.address for remote in stuck})
                if address is None:
                    break
                try:
                    made = self._made(address)
                except (OSError, RuntimeError) as error:  # there are no descriptors left, or no threads
                    failed = address, str(error)
                    break
                self._all.append(made)
                lent.append(made)
        if failed is not None:
            self._say(*failed, LEAST_REST)
        return [*lent]

    def take_back(self, remotes: list[Remote]) -> None:
        """Takes back what was lent and has not ended."""
        with self._mutex:
            for remote in remotes:
                assert isinstance(remote, PeerRemote)
                self._idle.append(remote)
                if remote.ready:
                    self._said.pop(remote.address, None)
        self._forget_ended()

    def close(self) -> None:
        """Ends all streams."""
        with self._mutex:
            ending, self._all, self._idle, self._most = self._all, [], [], 0
        for remote in ending:
            remote.end()

    def _made(self, address: str) -> PeerRemote:
        environment = self._environment()
        return PeerRemote(address, self._connections, self._secret, environment, self._note_end, self._note_bytes)

    def _look(self) -> Sequence[str]:
        """Returns the addresses of the other servers, of a moment ago."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            try:
                self._found = self._addresses()
            except OSError as error:
                _LOG.warning("the servers that could compute parts of batches are not known: %s", error)
                self._found = ()
            else:
                self._forget_gone(self._found)
        return self._found

    def _forget_gone(self, found: Collection[str]) -> None:
        """Keeps what is known of servers that there are: those that start anew may have other addresses each time."""
        with self._mutex:
            self._rest = {address: until for address, until in self._rest.items() if address in found}
            self._said = {address: why for address, why in self._said.items() if address in found}

    def _least_used(self, addresses: Sequence[str], stuck: Collection[str]) -> str | None:
        now = time.monotonic()
        used = Counter(remote.address for remote in self._all)
        able = [address for address in addresses if address not in stuck and self._rest.get(address, 0.0) <= now]
        return min(able, key=lambda address: used[address], default=None)

    def _end_hung(self) -> None:
        with self._mutex:
            for remote in self._idle:
                remote.catch_up()
            hung = [remote for remote in self._idle if remote.busy and remote.seconds > LOST_SECONDS]
            for remote in hung:
                self._idle.remove(remote)
        for remote in hung:
            self._say(remote.address, f"it has not answered for {LOST_SECONDS:g} s", LEAST_REST)
            remote.end()

    def _forget_ended(self) -> None:
        with self._mutex:
            ended = [remote for remote in self._idle if remote.ended]
            self._idle = [remote for remote in self._idle if not remote.ended]
            self._all = [remote for remote in self._all if not remote.ended]
        for remote in ended:
            remote.end()

    def _note_end(self, remote: PeerRemote, problem: Exception | None) -> None:
        if isinstance(problem, grpc.RpcError):
            code, details = problem.code(), problem.details()
            self._say(remote.address, f"{details} ({code.name})", LEAST_REST if code in LOST else MOST_REST)
        elif problem is not None:
            self._say(remote.address, str(problem), MOST_REST)

    def _say(self, address: str, why: str, rest: float) -> None:
        """Logs why a server does not compute for this one, unless that was said already, and has it not asked."""
        with self._mutex:
            self._rest[address] = time.monotonic() + rest
            known, self._said[address] = self._said.get(address), why
        if known != why:
            _LOG.warning("the server at %s computes no parts of batches, which is done here: %s", address, why)

    def _note_bytes(self, sent: int, received: int) -> None:
        with self._mutex:
            self._sent += sent
            self._received += received
