"""SessionBase: where a session stands, who may write to it, and the states of it that are kept."""

import contextlib
import os
from types import TracebackType
from typing import Self

from backwire import _files
from backwire._builder._graph import Graph
from backwire._errors import BackwireError
from backwire._errors_session import SessionNotFoundError
from backwire._files import File
from backwire._info import CheckpointInfo, SessionInfo
from backwire._session_state import SessionState
from backwire._wire import _calls_state
from backwire._wire._transport_base import SESSION_KEY
from backwire.aio._lease import Lease
from backwire.aio._transport import Transport


class SessionBase(SessionState):
    """What a session is besides its training; see `Session`."""

    def __init__(self, transport: Transport, info: SessionInfo, graph: Graph | None = None) -> None:
        """Speaks for the session that `info` describes, and that trains `graph` if that is known here."""
        super().__init__(info, graph)
        self._transport = transport.naming(SESSION_KEY, info.id)

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Does what `backwire.Session.info` does."""
        return await self._transport.send(_calls_state.info(self), timeout)

    async def digest(self, *, timeout: float | None = None) -> str:
        """Does what `backwire.Session.digest` does."""
        return await self._transport.send(_calls_state.info(self, digest=True), timeout)

    async def attach(
        self,
        *,
        holder: str | None = None,
        lease_timeout: float = 30.0,
        take_over: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Lease:
        """Does what `backwire.Session.attach` does.

        Example:
            >>> async def train(client):
            ...     session = await client.create_session(bw.parameter("w", 8.0) * 2, bw.SGD(1.0))
            ...     async with await session.attach(holder="trainer-1"):
            ...         return (await session.train_step({})).loss
            >>> run(train)
            16.0
        """
        call = _calls_state.attach(
            self, holder=holder, lease_timeout=lease_timeout, take_over=take_over, request_id=request_id
        )
        given = await self._transport.send(call, timeout)
        self._lease = given.number
        return Lease(self, given)

    async def save_checkpoint(
        self, name: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> CheckpointInfo:
        """Does what `backwire.Session.save_checkpoint` does."""
        return await self._transport.send(_calls_state.save_checkpoint(self, name, request_id), timeout)

    async def checkpoints(self, *, timeout: float | None = None) -> list[CheckpointInfo]:
        """Does what `backwire.Session.checkpoints` does."""
        return await self._transport.send(_calls_state.checkpoints(self), timeout)

    async def restore_checkpoint(
        self, name: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> CheckpointInfo:
        """Does what `backwire.Session.restore_checkpoint` does."""
        return await self._transport.send(_calls_state.restore(self, name, request_id), timeout)

    async def rewind(self, step: int, *, request_id: str | None = None, timeout: float | None = None) -> CheckpointInfo:
        """Does what `backwire.Session.rewind` does."""
        return await self._transport.send(_calls_state.restore(self, step, request_id), timeout)

    async def delete_checkpoint(
        self, name: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Does what `backwire.Session.delete_checkpoint` does."""
        await self._transport.send(_calls_state.delete_checkpoint(self, name, request_id), timeout)

    async def fork(self, *, request_id: str | None = None, timeout: float | None = None) -> Self:
        """Does what `backwire.Session.fork` does."""
        found = await self._transport.send(_calls_state.fork(self, request_id), timeout)
        return type(self)(self._transport, found, self._graph)

    async def move(self, replica: str, *, timeout: float | None = None) -> None:
        """Does what `backwire.Session.move` does."""
        await self._transport.send(_calls_state.move(self, replica), timeout)

    async def export(self, file: File, *, timeout: float | None = None) -> None:
        """Does what `backwire.Session.export` does; a thread writes the file."""
        with _files.writing(file) as restart:
            await self._transport.receive(_calls_state.export(self, restart), timeout)

    async def save(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Does what `backwire.Session.save` does."""
        await self.export(path, timeout=timeout)

    async def close(self, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Deletes the session on the server, with all that it holds; does nothing when it is gone already."""
        if self._closed:
            return
        with contextlib.suppress(SessionNotFoundError):
            await self._transport.send(_calls_state.delete(self, request_id), timeout)
        self._closed = True

    async def _detach(self, lease: Lease, request_id: str | None, timeout: float | None) -> None:
        if self._closed or self._lease != lease.number:
            return
        await self._transport.send(_calls_state.detach(self, lease.number, request_id), timeout)
        self._lease = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BackwireError:
            if error is None:
                raise
