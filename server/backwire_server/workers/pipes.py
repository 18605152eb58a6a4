"""A Pipeline stream through the front: its requests may be for sessions of several workers.

Each worker that is needed gets a stream of its own. Requests are done one after another in the order in which they
come, also those for different sessions: so before the next worker is given one, all that the last one was given must be
answered. A stream for the sessions of one worker, as most are, never waits.

When a worker ends, requests for sessions that are lost with it are answered one by one, and the stream goes on. One for
a durable session ends the stream: what follows must not be done before it, and the client sends all of it again.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages import fields
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.parting import Parts, ends_answer
from backwire_server.sessions.errors import NoWorker, SessionError
from backwire_server.workers.process import WorkerProcess
from backwire_server.workers.relay import ENDED, ClientCall, WorkerEnded, noticing_the_end
from backwire_server.workers.routing import lost
from backwire_server.workers.supervisor import Supervisor

LONGEST_ID = 64  # of a session, as far as messages tell it


@dataclass
class _Branch:
    """The stream to one worker, with the ids and sessions of the requests that it has not answered."""

    worker: WorkerProcess
    call: Any
    unanswered: deque[tuple[int, str]] = field(default_factory=deque)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False


class Pipe:
    """A Pipeline stream in progress."""

    def __init__(self, call: ClientCall, supervisor: Supervisor, max_chunk_bytes: int) -> None:
        """Passes on what `call` sends; for the chunks of a request see Parts."""
        self._parts = Parts(max_chunk_bytes)
        self._call = call
        self._supervisor = supervisor
        self._branches: dict[str, _Branch] = {}
        self._current: _Branch | None = None

    async def run(self) -> None:
        """Passes requests and answers on until all are answered; raises what ends the stream early."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._pump())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            for branch in self._branches.values():
                branch.call.cancel()

    async def _pump(self) -> None:
        while (message := await self._call.read()) is not None:
            if (found := self._parts.add(message)) is not None:
                session_id, parts = found
                await self._pass_on(fields.number(message), session_id, parts)
                self._call.ticket.give(sum(map(len, parts)))
        if self._parts.waiting:
            await self._pass_on(0, "", self._parts.waiting)  # the client broke off; a worker says so
        for branch in self._branches.values():
            with contextlib.suppress(*ENDED):
                await branch.call.done_writing()

    async def _pass_on(self, request_id: int, session_id: str, parts: list[bytes]) -> None:
        try:
            if self._elsewhere(session_id):
                await self._settle()
            branch = self._current = self._branch(session_id)
        except SessionError as error:
            _end_unless_lost(error)
            await self._settle()
            await self._refuse(request_id, error)
            return
        branch.unanswered.append((request_id, session_id[:LONGEST_ID]))
        branch.idle.clear()
        self._call.ticket.wait.busy()
        try:
            for part in parts:
                await branch.call.write(part)
        except ENDED:  # whoever reads it answers the request
            await branch.idle.wait()

    def _elsewhere(self, session_id: str) -> bool:
        return self._current is None or self._supervisor.find(session_id) is not self._current.worker

    def _branch(self, session_id: str) -> _Branch:
        worker = self._supervisor.find(session_id)
        branch = self._branches.get(worker.tag)
        if branch is None:
            branch = self._branches[worker.tag] = _Branch(worker, self._call.open(worker))
            self._tasks.create_task(self._read(branch))
        if branch.closed:
            raise lost(session_id)
        return branch

    async def _read(self, branch: _Branch) -> None:
        try:
            async with noticing_the_end(branch.worker):
                async for response in branch.call:
                    await self._call.write(response)
                    if ends_answer(response):
                        branch.unanswered.popleft()
                        if not branch.unanswered:
                            branch.idle.set()
                        self._note_idle()
        except WorkerEnded:
            await self._give_up(branch)

    async def _give_up(self, branch: _Branch) -> None:
        """Answers what a worker that ended has left unanswered; the stream goes on for sessions of others."""
        branch.closed = True
        while branch.unanswered:
            request_id, session_id = branch.unanswered.popleft()
            error = lost(session_id)
            _end_unless_lost(error)
            await self._refuse(request_id, error)
        branch.idle.set()
        self._note_idle()

    def _note_idle(self) -> None:
        if not any(branch.unanswered for branch in self._branches.values()):
            self._call.ticket.wait.idle()

    async def _settle(self) -> None:
        if self._current is not None and not self._current.closed:
            await self._current.idle.wait()

    async def _refuse(self, request_id: int, error: Exception) -> None:
        status, _ = status_of(error)
        refusal = pb.PipelineError(code=status.code, message=status.message, details=status.details)
        await self._call.write(pb.PipelineResponse(id=request_id, error=refusal).SerializeToString())


def _end_unless_lost(error: SessionError) -> None:
    """Ends the stream with an error after which the same request may succeed."""
    if isinstance(error, NoWorker):
        raise error
