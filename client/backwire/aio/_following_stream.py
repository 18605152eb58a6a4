"""A stream in progress to the server that has a session."""

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Self

import grpc

from backwire._wire._waiting import Vanished, Waiter


class Stream:
    """A stream in progress, of whose failure `note` is told before whoever reads it."""

    def __init__(self, call: Any, note: Callable[[Any], bool], waiter: Waiter) -> None:
        self._call = call
        self._note = note
        self._waiter = waiter

    async def read(self) -> Any:
        """Returns the next response, grpc.aio.EOF after the last."""
        with self._noting():
            return await self._call.read()

    def cancel(self) -> None:
        """Ends it, if it has not ended."""
        self._call.cancel()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            self._note(error)
            raise
        except asyncio.CancelledError:
            if was_given_up(self._waiter):
                raise Vanished(self._waiter.address) from None
            raise

    async def _response(self) -> Any:
        with self._noting():
            return await self._call

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if (response := await self.read()) is grpc.aio.EOF:
            raise StopAsyncIteration
        return response


def was_given_up(waiter: Waiter) -> bool:
    """Tells whether a call was cancelled since its server is gone, and not by whoever awaits it."""
    task = asyncio.current_task()
    return waiter.gone and not (task and task.cancelling())


class _Telling:
    """The inner call of a stream of requests, which lets the server say why it takes no more of them.

    grpc.aio gives a call whose message could not be sent a status of its own, in place of the one that is on its way.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_internal_error(self, text: str) -> None:
        """Leaves the status to the server."""


def telling(call: Any) -> Any:
    """Returns a call in progress that tells what the server said, also when it took no more requests."""
    call._cython_call = _Telling(call._cython_call)
    return call
