"""Passes calls on to workers, message by message, as bytes: deadlines, cancellation, metadata and errors with them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import grpc

from backwire_server.rpc.admission import Ticket, drained
from backwire_server.sessions.errors import Cancelled, NoWorker

STATUS_DETAILS = "grpc-status-details-bin"
DEATH_SECONDS = 2.0
"""How long after a connection broke its worker may take to be seen to have ended."""

ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""What writing to a call raises that is over."""

BROKE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
"""What a call ends with whose connection broke: INTERNAL where it was being written to."""

Metadata = tuple[tuple[str, str | bytes], ...]


class Worker(Protocol):
    """Where calls are passed on to: a connection to a worker, which may end."""

    @property
    def channel(self) -> Any:
        """The connection, an asynchronous channel."""

    @property
    def ended(self) -> asyncio.Event:
        """Set once it is known to have ended."""

    async def has_ended(self, within: float) -> bool:
        """Waits up to so many seconds for it to end, and tells whether it has."""


class WorkerEnded(Exception):
    """The worker ended before the call did."""


class ClientCall:
    """A call of a client: its messages, and what its answer takes.

    `context` is that of the asynchronous server. Each message counts for the ticket while it is on its way.
    """

    def __init__(self, method: str, context: Any, ticket: Ticket) -> None:
        self.method = method
        self.context = context
        self.ticket = ticket
        self._draining = False

    async def read(self) -> bytes | None:
        """Returns the next message, None after the last."""
        message = await self.context.read()
        if message is grpc.aio.EOF:
            return None
        self.ticket.take(len(message))
        return bytes(message)

    async def write(self, message: bytes) -> None:
        """Sends a part of the answer; raises Cancelled when the client is gone."""
        self.ticket.wait.send()
        try:
            await self.context.write(message)
        except grpc.aio.InternalError:
            raise Cancelled("the client went while it was answered") from None
        self.ticket.wait.sent()

    async def unary(self, worker: Worker, message: bytes) -> bytes:
        """Returns a worker's answer; raises WorkerEnded, or AioRpcError for what it refused."""
        method: Any = worker.channel.unary_unary(self.method)
        call = method(message, **self._terms())
        async with noticing_the_end(worker):
            response: bytes = await call
        self.context.set_trailing_metadata(ordinary(await call.trailing_metadata()))
        return response

    async def stream(self, worker: Worker, first: bytes, *, drains: bool = False) -> None:
        """Passes messages on in both directions until the worker has answered; raises what `unary` raises.

        One that `drains` passes on no more once this server shuts down, and raises ShuttingDown when all is answered.
        """
        call = self.open(worker)
        pump = asyncio.create_task(self._pump(first, call))
        if drains:
            self._stop_on_drain(pump)
        try:
            async with noticing_the_end(worker):
                async for response in call:
                    await self.write(response)
            self.context.set_trailing_metadata(ordinary(await call.trailing_metadata()))
            if self._draining:
                raise drained()
        except grpc.aio.AioRpcError:
            if self._draining:  # it broke off before it was whole, as it had to
                raise drained() from None
            raise
        except asyncio.CancelledError:  # by the client, or by the pump, which then tells why
            if pump.done() and not pump.cancelled() and (problem := pump.exception()) is not None:
                raise problem from None
            raise
        finally:
            pump.cancel()
            call.cancel()

    def open(self, worker: Worker) -> Any:
        """Returns a call to a worker, to write messages to and to read them from; cancel it in the end."""
        return worker.channel.stream_stream(self.method)(**self._terms())

    async def _pump(self, first: bytes, call: Any) -> None:
        message: bytes | None = first
        try:
            while message is not None:
                await call.write(message)
                self.ticket.give(len(message))
                message = await self.read()
            self.ticket.wait.busy()
            await call.done_writing()
        except ENDED:  # whoever reads it learns why
            pass
        except asyncio.CancelledError:
            if not self._draining:
                raise
            with suppress(*ENDED):
                await call.done_writing()
        except Exception:
            call.cancel()
            raise

    def _stop_on_drain(self, pump: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._draining = True
            pump.cancel()

        def tell() -> None:
            loop.call_soon_threadsafe(stop)

        self.ticket.on_drain(tell)

    def _terms(self) -> dict[str, Any]:
        return {
            "timeout": self.context.time_remaining(),
            "metadata": ordinary(self.context.invocation_metadata() or ()),
        }


@asynccontextmanager
async def noticing_the_end(worker: Worker) -> AsyncIterator[None]:
    """Raises WorkerEnded for a call that fails because the worker ended, and what it fails with otherwise.

    A worker that refuses a call while that is being written to may be heard or not; NoWorker, where it is not.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        told = any(key == STATUS_DETAILS for key, _ in error.trailing_metadata() or ())
        broke = error.code() in BROKE and not told
        if broke and await worker.has_ended(DEATH_SECONDS):
            raise WorkerEnded from None
        if broke:
            raise NoWorker("the worker ended the call before it was whole; call again", retry_after=0.1) from None
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if worker.ended.is_set() and not (task and task.cancelling()):  # with the connection, not by the client
            raise WorkerEnded from None
        raise


def ordinary(metadata: Iterable[tuple[str, str | bytes]], *, details: bool = False) -> Metadata:
    """Returns the metadata that is not gRPC's own, with the details of a status where they are wanted."""
    return tuple(
        (key, value)
        for key, value in metadata
        if not (key.startswith("grpc-") or key == "user-agent") or (details and key == STATUS_DETAILS)
    )
