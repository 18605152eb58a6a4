"""Goes straight to the server that has a session, as `backwire._following` does where one waits."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import grpc

from backwire._owners import Owners, session_of


class FollowingChannel:
    """A channel of grpc.aio to servers that tell which of them has a session: its calls go there from then on.

    A unary call is sent on at once; a stream ends with what was told, and is begun anew by whoever has it. When the
    owner cannot be reached, calls go by the first channel again. For one event loop.
    """

    def __init__(self, main: grpc.aio.Channel, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        """Takes over `main`; opens others by address."""
        self.owners = Owners[grpc.aio.Channel](main, open_channel)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, "unary_unary", arguments, options).unary

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, "unary_stream", arguments, options).stream

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, "stream_unary", arguments, options).stream

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, "stream_stream", arguments, options).stream

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As grpc.aio.Channel, of the first connection."""
        return self.owners.main.get_state(try_to_connect)

    async def wait_for_state_change(self, state: grpc.ChannelConnectivity) -> None:
        """As grpc.aio.Channel, of the first connection."""
        await self.owners.main.wait_for_state_change(state)

    async def close(self) -> None:
        """As grpc.aio.Channel, of all connections."""
        for channel in self.owners.channels:
            await channel.close()


class _Method:
    """A method of the service that is called where the session is."""

    def __init__(self, owners: Owners[grpc.aio.Channel], kind: str, arguments: tuple[Any, ...], options: Any) -> None:
        self._owners = owners
        self._make = kind, arguments, options
        self._methods = {"": getattr(owners.main, kind)(*arguments, **options)}

    async def unary(self, *arguments: Any, metadata: Any = (), **options: Any) -> Any:
        """Returns the answer."""
        session_id = session_of(metadata)
        for again in (True, False):
            address = self._owners.owner(session_id)
            told = self._owners.told(session_id, metadata)
            try:
                result = await self._at(address)(*arguments, metadata=told, **options)
            except grpc.aio.AioRpcError as error:
                if self._owners.note(session_id, address, error) and again:
                    continue
                raise
            self._owners.answered(address)
            return result
        raise AssertionError("the second attempt neither failed nor succeeded")

    def stream(self, *arguments: Any, metadata: Any = (), **options: Any) -> "_Stream":
        """Returns the call, which is in progress."""
        session_id = session_of(metadata)
        address = self._owners.owner(session_id)
        call = self._at(address)(*arguments, metadata=self._owners.told(session_id, metadata), **options)
        return _Stream(_telling(call), partial(self._owners.note, session_id, address))

    def _at(self, address: str) -> Any:
        method = self._methods.get(address)
        if method is None:
            kind, arguments, options = self._make
            method = self._methods[address] = getattr(self._owners.to(address), kind)(*arguments, **options)
        return method


class _Stream:
    """A stream in progress, of whose failure `note` is told before whoever reads it."""

    def __init__(self, call: Any, note: Callable[[Any], bool]) -> None:
        self._call = call
        self._note = note

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


def _telling(call: Any) -> Any:
    call._cython_call = _Telling(call._cython_call)
    return call
