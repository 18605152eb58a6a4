"""Sends calls over a channel of grpc.aio and awaits the answers, as `backwire._wire._transport` does and waits."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc

from backwire._errors import BackwireError
from backwire._errors_service import UnsupportedCallError
from backwire._wire._call import Call, Download, Upload
from backwire._wire._failures import from_rpc_error, unsupported
from backwire._wire._transport_base import VERSION_REQUEST, VERSION_SECONDS, TransportBase

Result = TypeVar("Result")

READY = grpc.ChannelConnectivity.READY


class Transport(TransportBase):
    """A channel whose calls are awaited, all on the event loop on which it was made."""

    async def send(self, call: Call[Result], timeout: float | None) -> Result:
        """Returns the outcome of a call."""
        rpc = getattr(self.stub, call.rpc)
        return call.read(await self.unary(rpc, call.request, timeout=timeout, request_id=call.request_id))

    async def receive(self, call: Download[Result], timeout: float | None) -> Result:
        """Returns the outcome of a call whose answer comes in parts, which a thread puts together."""
        rpc = getattr(self.stub, call.rpc)
        loop = asyncio.get_running_loop()

        async def attempt(seconds: float | None) -> Result:
            stream = rpc(call.request, timeout=seconds, metadata=self._told())
            try:
                return await asyncio.to_thread(call.read, _waited_for(stream, loop))
            finally:
                stream.cancel()

        return await self.run(attempt, self.patience(timeout, "transfer"), None, rpc)

    async def put(self, call: Upload[Result], timeout: float | None) -> Result:
        """Returns the outcome of a call whose request goes in parts."""
        rpc = getattr(self.stub, call.rpc)

        async def attempt(seconds: float | None) -> Any:
            return await rpc(_one_by_one(call.requests()), timeout=seconds, metadata=self._told())

        return call.read(await self.run(attempt, self.patience(timeout, "transfer"), call.request_id, rpc))

    async def unary(self, rpc: Any, request: Any, *, timeout: float | None, request_id: str | None) -> Any:
        """Returns the response to the request."""

        async def attempt(seconds: float | None) -> Any:
            return await rpc(request, timeout=seconds, metadata=self._told())

        return await self.run(attempt, timeout, request_id, rpc)

    async def converse(
        self, messages: AsyncIterable[bytes] | Iterator[bytes], seconds: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yields the serialized answers on a Pipeline stream, once; raises grpc.RpcError when it breaks."""
        self._check_open()
        call = self._pipeline(messages, timeout=seconds, metadata=self._told())
        try:
            async for data in call:
                yield data
        except asyncio.CancelledError:
            self._check_not_closed_meanwhile()
            raise
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the channel; calls in progress are cancelled. Closing again does nothing."""
        self._closed.set()
        await self._channel.close()

    def _check_not_closed_meanwhile(self) -> None:
        """Raises ClientClosedError where a call was cancelled because another task closed the client."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self._check_open()

    async def pause(self, seconds: float, error: BackwireError) -> None:
        """Waits so long after an error before the call is sent again; no longer, once a lost connection is back."""
        state = self._channel.get_state(try_to_connect=True)
        if error.reason is not None or state is READY:  # it failed for another reason
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while state is not READY:
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)

    async def _explained(self, error: BackwireError) -> BackwireError:
        """Returns the error, with the server's version where that is why."""
        if not isinstance(error, UnsupportedCallError):
            return error
        status: Any = self.stub.GetStatus(VERSION_REQUEST, timeout=VERSION_SECONDS, metadata=self._told())
        try:
            return unsupported(error, (await status).version)
        except grpc.RpcError:  # it is older still
            return unsupported(error, "")

    async def run(
        self,
        attempt: Callable[[float | None], Awaitable[Result]],
        timeout: float | None,
        request_id: str | None,
        rpc: object = None,
    ) -> Result:
        """Returns what `attempt` does in the seconds that are left; repeats it when the server could not take it.

        `rpc` is the method of the stub that it calls, None for Pipeline.
        """
        self._check_open()
        attempts = self.attempts(self.patience(timeout))
        with self.span(rpc) as span:
            while True:
                try:
                    result = await attempt(attempts.remaining)
                except grpc.RpcError as failure:
                    error: BackwireError = from_rpc_error(failure, request_id)
                except BackwireError as failure:  # told in an answer on a stream
                    error = failure
                except (asyncio.CancelledError, grpc.aio.UsageError):
                    self._check_not_closed_meanwhile()
                    raise
                else:
                    self.budget.succeeded()
                    return result
                wait = attempts.wait_before_retry(error, repeatable=request_id != "")
                if wait is None:
                    raise await self._explained(error)
                if span is not None:
                    span.repeated(error, wait)
                await self.pause(wait, error)


def _waited_for(stream: Any, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Yields the responses of a stream to a thread that may wait for them."""

    async def read() -> Any:
        return await stream.read()

    while (response := asyncio.run_coroutine_threadsafe(read(), loop).result()) is not grpc.aio.EOF:
        yield response


async def _one_by_one(requests: Iterator[Any]) -> AsyncIterator[Any]:
    """Yields requests that a thread makes, since making them may read a file."""
    end = object()
    while (request := await asyncio.to_thread(next, requests, end)) is not end:
        yield request
