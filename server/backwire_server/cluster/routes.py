"""The ways from a gateway to the workers of a cluster."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import grpc

from backwire_server.access.credentials import PeerCertificates
from backwire_server.cluster.load import Load
from backwire_server.cluster.placing import for_new
from backwire_server.config_parts import Access
from backwire_server.rpc.replicas.connections import BETWEEN_SERVERS
from backwire_server.sessions.errors import NoWorker

BROKEN_SECONDS = 2.0
"""How long a worker gets no calls, as long as there are others, after one broke."""


class Route:
    """A worker at one address, as `workers.relay` passes calls on to. For the thread of the event loop.

    Attributes:
        load: What it told last.
        channel: The connection to it.
        ended: Set once there is no such worker any more.
    """

    def __init__(self, load: Load, certificates: PeerCertificates | None) -> None:
        """Connects when the first call wants to; raises OSError for certificates that cannot be read."""
        self.load = load
        self.channel: Any = (
            grpc.aio.insecure_channel(load.address, BETWEEN_SERVERS)
            if certificates is None
            else grpc.aio.secure_channel(load.address, certificates.credentials(), BETWEEN_SERVERS)
        )
        self.ended = asyncio.Event()
        self.broken_until = 0.0

    async def has_ended(self, within: float) -> bool:  # noqa: ARG002
        """Tells whether it is known to be gone, at once: another worker may have the session by then."""
        return self.ended.is_set()

    def broke(self) -> None:
        """Notes that a call did not get through."""
        self.broken_until = time.monotonic() + BROKEN_SECONDS


class Routes:
    """The routes to the workers that have calls. For the thread of the event loop."""

    def __init__(self, access: Access) -> None:
        """Connects as `access` has it: to workers that encrypt where this gateway does."""
        self._certificates = PeerCertificates.of(access.tls_certificate, access.tls_key, access.peer_ca)
        self._routes: dict[str, Route] = {}
        self._placed: Counter[str] = Counter()
        self._turn = 0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def all(self) -> list[Route]:
        """Those to workers that take calls, and let them through as far as is known; else all that take calls."""
        routes, now = [route for route in self._routes.values() if route.load.takes_calls], time.monotonic()
        return [route for route in routes if route.broken_until <= now] or routes

    def update(self, loads: Iterable[Load]) -> None:
        """Takes up what workers tell, and closes the ways to those that are gone; raises OSError.

        Calls in progress go on with a worker that is told, also where it takes no new ones.
        """
        told = {load.worker: load for load in loads}
        for name, route in list(self._routes.items()):
            if name not in told or told[name].address != route.load.address:
                self._end(self._routes.pop(name))
        for name, load in told.items():
            known = self._routes.get(name)
            if known is None or known.load != load:
                self._placed.pop(name, None)
            if known is not None:
                known.load = load
            else:
                self._routes[name] = Route(load, self._certificates)

    def next(self) -> Route:
        """Returns each in turn that does not hang, or each where all do; raises NoWorker when there is none."""
        routes = [route for route in self.all if not route.load.hangs] or self.all
        if not routes:
            raise _none()
        self._turn += 1
        return routes[self._turn % len(routes)]

    def for_new(self) -> Route:
        """Returns the one to make a session on, see `placing.for_new`; raises NoWorker when there is none."""
        name = for_new([route.load for route in self.all], self._placed)
        if name is None:
            raise _none()
        self._placed[name] += 1
        return self._routes[name]

    async def close(self) -> None:
        """Ends the connections."""
        self.update([])
        await asyncio.gather(*self._closing)

    def _end(self, route: Route) -> None:
        route.ended.set()
        task = asyncio.ensure_future(route.channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _none() -> NoWorker:
    return NoWorker("no worker of the cluster serves at this moment; call again", retry_after=0.5)
