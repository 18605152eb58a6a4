"""The front: the one address of a server with several workers. It passes calls on and computes nothing itself."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config import Config, version
from backwire_server.messages import fields
from backwire_server.messages.decoding import decoded
from backwire_server.messages.request_keys import MAX_ID_BYTES
from backwire_server.sessions.errors import InvalidRequest
from backwire_server.sessions.requests import WINDOW
from backwire_server.sessions.store.paging import PageTokens, page_limit
from backwire_server.telemetry.collecting import StaffCollector
from backwire_server.workers import listing, overview
from backwire_server.workers.assignment import of_all
from backwire_server.workers.pipes import Pipe
from backwire_server.workers.process import WorkerProcess
from backwire_server.workers.reception import Reception
from backwire_server.workers.relay import ClientCall, WorkerEnded
from backwire_server.workers.routing import lost
from backwire_server.workers.supervisor import Supervisor

Answer = Callable[[ClientCall, bytes], Awaitable[bytes]]


class Front(Reception):
    """A server that has its workers do all calls. For the thread of the event loop.

    Attributes:
        address: What clients connect to; with the port that was found when 0 was asked for.
    """

    def __init__(self, settings: Config, descriptor: int | None = None) -> None:
        """Listens, and answers from `start` on; raises OSError when the address cannot be had.

        Workers inherit the descriptor, if there is one.
        """
        super().__init__(settings, of_all(settings))
        self._limits = settings.limits
        self._version = version()
        self._started = time.time_ns()
        self._mutations: OrderedDict[str, str] = OrderedDict()
        self._tokens = PageTokens()
        self._special: dict[str, Answer] = {
            "CreateSession": self._create,
            "ForkSession": self._fork,
            "DeleteSession": self._delete,
            "ListSessions": self._list,
            "GetStatus": self._status,
            "DescribeGraph": self._anywhere,
            "ListOps": self._anywhere,
        }
        self.listen()
        self._supervisor = Supervisor(settings, descriptor)
        self._supervisor.on_change = self._tell_health
        self.metrics_here.watch(StaffCollector(lambda: self._supervisor.staff))

    async def start(self) -> None:
        """Starts the workers, and serves once all of them do; raises OSError when one does not."""
        await self._supervisor.start()
        await self.open()

    async def metrics(self) -> dict[str, str]:
        """Returns the metrics of each process in Prometheus' text format, by its name; none of a mute worker."""
        workers = self._supervisor.by_number
        told = await asyncio.gather(*(worker.metrics() for worker in workers.values()))
        found = {str(index): text for index, text in zip(workers, told, strict=True) if text}
        return {"front": self.metrics_here.exposition().decode(), **found}

    async def stop(self, grace: float) -> bool:
        """As `rpc.server.Server.stop`; ends the workers too."""
        drained, _ = await asyncio.gather(self.drain(grace), self._supervisor.stop(grace))
        await self.close(drained)
        return drained

    async def answer(self, method: Any, call: ClientCall) -> None:
        """As `Reception.answer`."""
        if method.client_streaming and method.server_streaming:
            await Pipe(call, self._supervisor, self._limits.max_pass_bytes).run()
            return
        first = await call.read()
        if first is None:
            raise InvalidRequest("the call has no request message; send one")
        if not method.client_streaming:
            call.ticket.wait.busy()
        special = self._special.get(method.name)
        session_id = fields.text(first, 1) if special is None else ""
        try:
            if method.name == "ImportSession":
                await self._import(call, first)
            elif special is not None:
                await call.write(await special(call, first))
            elif method.client_streaming or method.server_streaming:
                await call.stream(self._supervisor.find(session_id), first)
            else:
                await call.write(await call.unary(self._supervisor.find(session_id), first))
        except WorkerEnded:
            raise lost(session_id) from None

    async def _create(self, call: ClientCall, message: bytes) -> bytes:
        async with self._making(fields.text(message, 4)) as worker:
            return await call.unary(worker, message)

    async def _import(self, call: ClientCall, first: bytes) -> None:
        async with self._making(fields.text(first, 1)) as worker:
            await call.stream(worker, first)

    async def _fork(self, call: ClientCall, message: bytes) -> bytes:
        worker = self._supervisor.find(fields.text(message, 1))
        response = await call.unary(worker, message)
        worker.note_created()
        return response

    @contextlib.asynccontextmanager
    async def _making(self, request_id: str) -> AsyncIterator[WorkerProcess]:
        """Gives the worker to make a session on: the one that this request was sent to before, or the roomiest."""
        before = self._chosen(request_id)
        worker = before or self._supervisor.for_new(request_id)
        self._remember(request_id, worker)
        worker.creating += 1
        try:
            yield worker
        except grpc.aio.AioRpcError as error:
            if before is None and error.code() in REFUSALS:
                self._mutations.pop(request_id, None)
            raise
        finally:
            worker.creating -= 1
        if before is None:
            worker.note_created()

    async def _delete(self, call: ClientCall, message: bytes) -> bytes:
        request_id = fields.text(message, 2)
        worker = self._chosen(request_id) or self._supervisor.find(fields.text(message, 1))
        self._remember(request_id, worker)
        return await call.unary(worker, message)

    async def _anywhere(self, call: ClientCall, message: bytes) -> bytes:
        return await call.unary(self._supervisor.roomiest(), message)

    async def _list(self, call: ClientCall, message: bytes) -> bytes:
        request = decoded(pb.ListSessionsRequest, message)
        size = page_limit(request.page_size)
        token = request.page_token
        positions = listing.read_positions(self._tokens.open(token)) if token else {}
        workers = {worker.tag: self._page_of(call, worker) for worker in self._supervisor.workers}
        found, rest = await listing.merge(workers, positions, size, self._limits.max_message_bytes // 2)
        next_token = "" if rest is None else self._tokens.seal(listing.write_positions(rest))
        return pb.ListSessionsResponse(sessions=found, next_page_token=next_token).SerializeToString()

    async def _status(self, call: ClientCall, message: bytes) -> bytes:
        request = decoded(pb.GetStatusRequest, message)
        size = page_limit(request.max_sessions, "max_sessions")
        asked = (call.unary(worker, message) for worker in self._supervisor.workers)
        told = await asyncio.gather(*asked, return_exceptions=True)
        found = overview.together([pb.GetStatusResponse.FromString(each) for each in _answers(told)], size)
        found.version = self._version
        found.start_time.FromNanoseconds(self._started)
        found.time.FromNanoseconds(time.time_ns())
        return found.SerializeToString()

    def _page_of(self, call: ClientCall, worker: WorkerProcess) -> listing.Fetch:
        async def fetch(token: str, size: int) -> pb.ListSessionsResponse:
            request = pb.ListSessionsRequest(page_size=size, page_token=token)
            try:
                return pb.ListSessionsResponse.FromString(await call.unary(worker, request.SerializeToString()))
            except WorkerEnded:
                return pb.ListSessionsResponse()

        return fetch

    def _chosen(self, request_id: str) -> WorkerProcess | None:
        """Returns the worker that this creation or deletion was sent to before, which alone knows what came of it."""
        return self._supervisor.by_tag(self._mutations.get(request_id, ""))

    def _remember(self, request_id: str, worker: WorkerProcess) -> None:
        if 0 < len(request_id) <= MAX_ID_BYTES:  # the worker refuses longer ones
            self._mutations[request_id] = worker.tag
            self._mutations.move_to_end(request_id)
            if len(self._mutations) > WINDOW:
                self._mutations.popitem(last=False)

    def _tell_health(self) -> None:
        workers = self._supervisor.workers
        self.tell_health(serving=bool(workers) and not any(worker.recovering or worker.hangs for worker in workers))


def _answers(told: Iterable[bytes | BaseException]) -> Iterator[bytes]:
    """Yields what workers have answered, but for those that ended meanwhile; raises what another was refused with."""
    for each in told:
        if isinstance(each, bytes):
            yield each
        elif not isinstance(each, WorkerEnded):
            raise each


REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""The answers to a creation or deletion after which nothing of it is left, so that any worker may do it next time."""
