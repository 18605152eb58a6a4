"""Goes straight to the server that has a session, as `backwire._wire._following` does where one waits."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc

from backwire._wire._owners import Owners, session_of
from backwire._wire._waiting import (
    LOOK_SECONDS,
    QUESTION,
    SLOW_SECONDS,
    Broken,
    Vanished,
    Waiter,
    Waiting,
    answered,
    since_of,
)
from backwire.aio._following_stream import Stream, telling, was_given_up


class FollowingChannel:
    """A channel of grpc.aio to servers that tell which of them has a session: its calls go there from then on.

    A unary call is sent on at once; a stream ends with what was told, and is begun anew by whoever has it. When the
    owner cannot be reached, or others say that it lives no more, calls go by the first channel again. For one event
    loop.
    """

    def __init__(self, main: grpc.aio.Channel, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        """Takes over `main`; opens others by address."""
        self.owners = Owners[grpc.aio.Channel](main, open_channel)
        self._watch = _Watch(self.owners)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, self._watch, "unary_unary", arguments, options).unary

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, self._watch, "unary_stream", arguments, options).stream

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, self._watch, "stream_unary", arguments, options).stream

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.aio.Channel."""
        return _Method(self.owners, self._watch, "stream_stream", arguments, options).stream

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As grpc.aio.Channel, of the first connection."""
        return self.owners.main.get_state(try_to_connect)

    async def wait_for_state_change(self, state: grpc.ChannelConnectivity) -> None:
        """As grpc.aio.Channel, of the first connection."""
        await self.owners.main.wait_for_state_change(state)

    async def close(self) -> None:
        """As grpc.aio.Channel, of all connections."""
        await self._watch.close()
        for channel in self.owners.channels:
            await channel.close()


class _Watch:
    """Gives up what waits for a server that others say is gone: a task looks as long as there are calls, and asks."""

    def __init__(self, owners: Owners[grpc.aio.Channel]) -> None:
        self._owners = owners
        self._waiting = Waiting(owners)
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def over(self, waiter: Waiter) -> Iterator[None]:
        """Watches over a call for the block; raises Vanished where it was cancelled since its server is gone."""
        number = self.begin(waiter)
        try:
            yield
        except asyncio.CancelledError:
            if was_given_up(waiter):
                raise Vanished(waiter.address) from None
            raise
        finally:
            self._waiting.remove(number)

    def begin(self, waiter: Waiter) -> int:
        """Watches over a call until that is over; returns its number."""
        if self._task is None:
            self._task = asyncio.create_task(self._look_on(), name="backwire-waiting")
        return self._waiting.add(waiter)

    def end(self, number: int) -> None:
        """Watches over a call no more."""
        self._waiting.remove(number)

    async def close(self) -> None:
        """Ends the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look_on(self) -> None:
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            due = self._waiting.due()
            if due is not None and (heir := await self._heir(*due)) is not None:
                await self._give_up(due[0].address, heir)
        self._task = None

    async def _heir(self, waiter: Waiter, channel: grpc.aio.Channel) -> str | None:
        request, metadata = waiter.question
        ask: Any = channel.unary_unary(QUESTION)
        try:
            await ask(request, timeout=SLOW_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return waiter.heir(error)
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            pass
        return None

    async def _give_up(self, address: str, heir: str) -> None:
        for waiter in self._waiting.at(address):
            waiter.gone = True
            waiter.call.cancel()
        channel = self._owners.drop(address, heir)
        if channel is not None:
            await channel.close()


class _Method:
    """A method of the service that is called where the session is."""

    def __init__(
        self,
        owners: Owners[grpc.aio.Channel],
        watch: _Watch,
        kind: str,
        arguments: tuple[Any, ...],
        options: Any,
    ) -> None:
        self._owners = owners
        self._watch = watch
        self._make = kind, arguments, options
        self._main = getattr(owners.main, kind)(*arguments, **options)
        self._methods: dict[str, tuple[grpc.aio.Channel, Any]] = {}

    async def unary(self, *arguments: Any, metadata: Any = (), **options: Any) -> Any:
        """Returns the answer."""
        session_id = session_of(metadata)
        for again in (True, False):
            address = self._owners.owner(session_id)
            told = self._owners.told(session_id, metadata)
            try:
                call = self._at(address)(*arguments, metadata=told, **options)
                if not address:
                    return answered(await call)
                result = answered(await self._answer(call, Waiter(address, session_id, told)))
            except Vanished:
                raise
            except (grpc.aio.AioRpcError, Broken) as error:
                if self._owners.note(session_id, address, error) and again:
                    continue
                raise
            self._owners.answered(address)
            return result
        raise AssertionError("the second attempt neither failed nor succeeded")

    def stream(self, *arguments: Any, metadata: Any = (), **options: Any) -> "Stream":
        """Returns the call, which is in progress."""
        session_id = session_of(metadata)
        address = self._owners.owner(session_id)
        told = self._owners.told(session_id, metadata)
        call = telling(self._at(address)(*arguments, metadata=told, **options))
        waiter = Waiter(address, session_id, told, since_of(arguments[0]))
        if address:
            waiter.call, number = call, self._watch.begin(waiter)
            call.add_done_callback(lambda _: self._watch.end(number))
        return Stream(call, partial(self._owners.note, session_id, address), waiter)

    async def _answer(self, call: Any, waiter: Waiter) -> Any:
        waiter.call = call
        with self._watch.over(waiter):
            return await call

    def _at(self, address: str) -> Any:
        channel = self._owners.to(address)
        if channel is self._owners.main:
            return self._main
        made, method = self._methods.get(address, (None, None))
        if made is not channel:
            kind, arguments, options = self._make
            method = getattr(channel, kind)(*arguments, **options)
            self._methods[address] = channel, method
        return method
