"""A gateway: an address that leads to the workers of a cluster. It passes calls on and computes nothing itself.

New sessions go to the worker that has most room. Calls for sessions go to any worker: that one does them, tells a
client which follows where the session is, so that this one is in its way no more, or passes them on to who has it.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import grpc

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.cluster.load import Load
from backwire_server.cluster.routes import Route, Routes
from backwire_server.config import Config, version
from backwire_server.messages.decoding import decoded
from backwire_server.rpc.admission import QUOTAS
from backwire_server.sessions.errors import InvalidRequest, NoWorker
from backwire_server.sessions.store.paging import page_limit
from backwire_server.workers import overview
from backwire_server.workers.reception import Reception
from backwire_server.workers.relay import ClientCall, WorkerEnded

NEW = {"CreateSession", "ImportSession"}
"""The methods that make a session of nothing that a worker has already."""

SHARE = 8
"""How many times what a worker takes on at a time a gateway does: that of so many workers."""


class Gateway(Reception):
    """A server that has the workers of a cluster do all calls. For the thread of the event loop."""

    def __init__(self, settings: Config) -> None:
        """Listens, and answers from `open` on; raises OSError when the address cannot be had."""
        capacity = settings.capacity
        super().__init__(settings, replace(capacity, **{name: getattr(capacity, name) * SHARE for name in QUOTAS}))
        self._routes = Routes(settings.access)
        self._started = time.time_ns()
        self.listen()

    def update(self, loads: Iterable[Load]) -> None:
        """Takes up which workers take calls, and what they have to do."""
        self._routes.update(loads)
        self.tell_health(serving=any(not route.load.hangs for route in self._routes.all))

    async def stop(self, grace: float) -> bool:
        """As `rpc.server.Server.stop`; the workers go on."""
        drained = await self.drain(grace)
        await self.close(drained)
        await self._routes.close()
        return drained

    async def answer(self, method: Any, call: ClientCall) -> None:
        """As `Reception.answer`."""
        first = await call.read()
        if first is None:
            if method.client_streaming and method.server_streaming:
                return
            raise InvalidRequest("the call has no request message; send one")
        if method.name == "GetStatus":
            await call.write(await self._status(call, first))
            return
        route = self._routes.for_new() if method.name in NEW else self._routes.next()
        try:
            if method.client_streaming and method.server_streaming:
                call.ticket.wait.idle()  # who waits for whom is known where it is answered
            elif not method.client_streaming:
                call.ticket.wait.busy()
            await self._pass_on(method, call, route, first)
        except WorkerEnded:
            raise NoWorker("the worker that had the call has ended; call again", retry_after=0.1) from None
        except NoWorker:
            route.broke()
            raise

    async def _pass_on(self, method: Any, call: ClientCall, route: Route, first: bytes) -> None:
        if method.client_streaming or method.server_streaming:
            # workers go on when this gateway ends, and so would a Pipeline
            await call.stream(route, first, drains=method.client_streaming and method.server_streaming)
        else:
            await call.write(await call.unary(route, first))

    async def _status(self, call: ClientCall, message: bytes) -> bytes:
        """Returns the sum of what the workers tell; each session is told by the one that has it in memory."""
        request = decoded(pb.GetStatusRequest, message)
        size = page_limit(request.max_sessions, "max_sessions")
        told = await asyncio.gather(*(call.unary(route, message) for route in self._routes.all), return_exceptions=True)
        refused = [each for each in told if isinstance(each, grpc.aio.AioRpcError)]
        answers = [pb.GetStatusResponse.FromString(each) for each in told if isinstance(each, bytes)]
        if refused and not answers:
            raise refused[0]
        found = overview.together(_apart(answers), size)
        found.session_count = max((answer.session_count for answer in answers), default=0)
        found.version = version()
        found.start_time.FromNanoseconds(self._started)
        found.time.FromNanoseconds(time.time_ns())
        return found.SerializeToString()


def _apart(answers: list[pb.GetStatusResponse]) -> list[pb.GetStatusResponse]:
    """Returns the answers with each session in one of them: that of the worker which has it in memory, if one has."""
    asleep = pb.SESSION_STATE_ASLEEP
    awake = {each.session_id for answer in answers for each in answer.sessions if each.state != asleep}
    known: set[str] = set()
    for answer in answers:
        mine = [
            each
            for each in answer.sessions
            if each.session_id not in known and (each.state != asleep or each.session_id not in awake)
        ]
        known.update(each.session_id for each in mine)
        del answer.sessions[:]
        answer.sessions.extend(mine)
    return answers
