"""Client: a connection to a server whose calls are awaited."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from backwire import _files
from backwire._builder._graph import Graph, as_graph
from backwire._builder._value import Value
from backwire._connect import EMBEDDED, check_embedded
from backwire._embedded import EmbeddedServer
from backwire._errors_service import ClientClosedError
from backwire._files import File
from backwire._info import Durability, Executor, Precision, SessionInfo
from backwire._inspection import GraphDescription, OpInfo
from backwire._settings import Settings, chosen
from backwire._status import ServerStatus, SessionHistory
from backwire._training._optimizers import Optimizer
from backwire._wire import _calls_client
from backwire._wire._channel import TLS, following, open_async_channel, with_port
from backwire._wire._retry import Retry
from backwire._wire._timeout import Timeout
from backwire._wire._transport_base import REQUEST_KEY, SESSION_KEY
from backwire.aio._following import FollowingChannel
from backwire.aio._session import Session
from backwire.aio._transport import Transport


def connect(
    target: str | None = None,
    *,
    token: str | None = None,
    tls: TLS | bool | None = None,
    timeout: Timeout | float | None = None,
    retry: Retry | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    profile: str | None = None,
) -> "Client":
    """Returns a client of the server at `target`, to be used on the event loop on which this is called.

    Arguments are those of `backwire.connect`. An embedded server starts when the client is entered with `async with`.
    Where the server has several processes, all calls go by its address; among replicas that share a directory, they go
    to the one that has the session.

    Example:
        >>> async def train():
        ...     async with bw.aio.connect("embedded") as client:
        ...         w = bw.parameter("w", [1.0, 2.0])
        ...         session = await client.create_session(bw.sum(w * w), optimizer=bw.SGD(0.25))
        ...         return [(await session.train_step({})).loss for _ in range(3)]
        >>> asyncio.run(train())
        [5.0, 1.25, 0.3125]
    """
    settings = chosen(target, token=token, tls=tls, timeout=timeout, profile=profile)
    check_embedded(settings.at(), token=settings.token, tls=settings.tls, data_dir=data_dir)
    return Client(settings, retry or Retry(), data_dir)


class Client:
    """A connection to a server. Made by `connect`; an asynchronous context manager.

    What `backwire.Client` is where one waits: the same names, arguments and errors, and all that asks the server is
    awaited, but `sessions`, which is iterated with `async for`.

    Attributes:
        target: Where the server is; that of an embedded one is a socket, once it is started.
    """

    def __init__(self, settings: Settings, retry: Retry, data_dir: str | os.PathLike[str] | None) -> None:
        """Connects to the target when it is first called; a target that is embedded, when the client is entered."""
        target = settings.at()
        self.target = target if target == EMBEDDED else with_port(target)
        self._settings = settings
        self._retry = retry
        self._data_dir = data_dir
        self._server: EmbeddedServer | None = None
        self._opened = None if target == EMBEDDED else self._open(target)

    async def create_session(
        self,
        graph: Graph | Value,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        *,
        max_staleness: int | None = None,
        data_parallel: int = 1,
        precision: Precision | None = None,
        durability: Durability | None = None,
        executor: Executor | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Does what `backwire.Client.create_session` does."""
        sent = as_graph(graph)
        call = _calls_client.create_session(
            sent,
            optimizer,
            seed,
            durability,
            request_id,
            max_staleness=max_staleness,
            executor=executor,
            data_parallel=data_parallel,
            precision=precision,
        )
        found = await self._transport.naming(REQUEST_KEY, call.request_id or "").send(call, timeout)
        return Session(self._transport, found, sent)

    async def describe(
        self,
        graph: Graph | Value,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        optimizer: Optimizer | None = None,
        *,
        precision: Precision | None = None,
        timeout: float | None = None,
    ) -> GraphDescription:
        """Does what `backwire.Client.describe` does."""
        return await self._transport.send(_calls_client.describe(graph, input_shapes, optimizer, precision), timeout)

    async def ops(self, *, timeout: float | None = None) -> dict[str, OpInfo]:
        """Does what `backwire.Client.ops` does."""
        return await self._transport.send(_calls_client.ops(), timeout)

    async def session(self, id: str, *, timeout: float | None = None) -> Session:  # noqa: A002
        """Does what `backwire.Client.session` does."""
        found = await self._transport.naming(SESSION_KEY, id).send(_calls_client.session(id), timeout)
        return Session(self._transport, found)

    async def import_session(
        self,
        file: File,
        *,
        durability: Durability | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Does what `backwire.Client.import_session` does; a thread reads the file."""
        make = _calls_client.import_session(durability, request_id)
        with _files.reading(file) as source:
            call = make(source)
            found = await self._transport.naming(REQUEST_KEY, call.request_id).put(call, timeout)
        return Session(self._transport, found)

    async def load(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> Session:
        """Does what `backwire.Client.load` does."""
        return await self.import_session(path, timeout=timeout)

    async def sessions(self, *, page_size: int = 0, timeout: float | None = None) -> AsyncIterator[SessionInfo]:
        """Yields what `backwire.Client.sessions` does, for `async for`."""
        token = ""
        while True:
            found, token = await self._transport.send(_calls_client.sessions(page_size, token), timeout)
            for each in found:
                yield each
            if not token:
                return

    async def status(self, *, max_sessions: int = 0, timeout: float | None = None) -> ServerStatus:
        """Does what `backwire.Client.status` does."""
        return await self._transport.send(_calls_client.status(max_sessions), timeout)

    async def history(self, id: str, *, cursor: str = "", timeout: float | None = None) -> SessionHistory:  # noqa: A002
        """Does what `backwire.Client.history` does."""
        return await self._transport.naming(SESSION_KEY, id).send(_calls_client.history(id, cursor), timeout)

    async def close(self) -> None:
        """Closes the connection, and ends the embedded server when there is one. Closing again does nothing."""
        if self._opened is not None:
            await self._opened.close()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    @property
    def _transport(self) -> Transport:
        if self._opened is None:
            raise ClientClosedError("the embedded server is not started; use `async with` to start and end it")
        return self._opened

    def _open(self, target: str) -> Transport:
        token, tls, timeout = self._settings.token, self._settings.tls, self._settings.timeout
        opened = partial(open_async_channel, token=token, tls=tls)
        channel = FollowingChannel(opened(target), following(target, opened))
        return Transport(channel, token=token, timeout=timeout, retry=self._retry)

    def __repr__(self) -> str:
        return f"<Client of {self.target}>"

    async def __aenter__(self) -> Self:
        if self._opened is None:
            self._server = await asyncio.to_thread(EmbeddedServer, self._data_dir)
            self.target = self._server.target
            self._opened = self._open(self.target)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
