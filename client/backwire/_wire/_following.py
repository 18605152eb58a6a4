"""Goes straight to the server that has a session, where several share a directory and the target is any of them."""

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from backwire._wire._owners import Owners, session_of
from backwire._wire._waiting import LOOK_SECONDS, QUESTION, SLOW_SECONDS, Vanished, Waiter, Waiting, answered, since_of

IDLE_LOOKS = 8
"""After how many looks without a call in progress nobody looks any more, until there is one."""


class FollowingChannel(grpc.Channel):
    """A channel to servers that tell which of them has a session: its calls go there from then on.

    A unary call is sent on at once; a stream ends with what was told, and is begun anew by whoever has it. When the
    owner cannot be reached, or others say that it lives no more, calls go by the first channel again. May be used by
    several threads at once.
    """

    def __init__(self, main: grpc.Channel, open_channel: Callable[[str], grpc.Channel]) -> None:
        """Takes over `main`; opens others by address."""
        self.owners = Owners[grpc.Channel](main, open_channel)
        self._watch = _Watch(self.owners)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, self._watch, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, self._watch, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, self._watch, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, self._watch, "stream_stream", arguments, options)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """As grpc.Channel, of the first connection."""
        self.owners.main.subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Any) -> None:
        """As grpc.Channel, of the first connection."""
        self.owners.main.unsubscribe(callback)

    def close(self) -> None:
        """As grpc.Channel, of all connections."""
        self._watch.close()
        for channel in self.owners.channels:
            channel.close()

    def __enter__(self) -> "FollowingChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """Gives up what waits for a server that others say is gone: a thread looks as long as there are calls, and asks.

    May be used by several threads at once.
    """

    def __init__(self, owners: Owners[grpc.Channel]) -> None:
        self._owners = owners
        self._waiting = Waiting(owners)
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def begin(self, waiter: Waiter) -> int:
        """Watches over a call until `end` is given the number that is returned."""
        with self._mutex:
            if self._thread is None and not self._closed.is_set():
                thread = threading.Thread(target=self._look_on, name="backwire-waiting", daemon=True)
                with contextlib.suppress(RuntimeError):  # where no more threads may be, the call is made all the same
                    thread.start()
                    self._thread = thread
            return self._waiting.add(waiter)

    def end(self, number: int) -> None:
        """Watches over a call no more."""
        with self._mutex:
            self._waiting.remove(number)

    def close(self) -> None:
        """Ends the thread, soon."""
        self._closed.set()

    def _look_on(self) -> None:
        idle = 0
        while not self._closed.wait(LOOK_SECONDS):
            with self._mutex:
                idle = 0 if self._waiting else idle + 1
                if idle == IDLE_LOOKS:
                    self._thread = None
                    return
                due = self._waiting.due()
            if due is not None and (heir := self._heir(*due)) is not None:
                self._give_up(due[0].address, heir)

    def _heir(self, waiter: Waiter, channel: grpc.Channel) -> str | None:
        request, metadata = waiter.question
        try:
            ask: Any = channel.unary_unary(QUESTION)
            ask(request, timeout=SLOW_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return waiter.heir(error)
        except ValueError:  # the channel was closed meanwhile
            pass
        return None

    def _give_up(self, address: str, heir: str) -> None:
        """Closes the channel: what waits in a blocking call ends in no other way."""
        with self._mutex:
            for waiter in self._waiting.at(address):
                waiter.gone = True
        channel = self._owners.drop(address, heir)
        if channel is not None:
            channel.close()


class _Method:
    """A method of the service that is called where the session is."""

    def __init__(
        self, owners: Owners[grpc.Channel], watch: _Watch, kind: str, arguments: tuple[Any, ...], options: Any
    ) -> None:
        self._owners = owners
        self._watch = watch
        self._make = kind, arguments, options
        self._unary = kind == "unary_unary"
        self._main = getattr(owners.main, kind)(*arguments, **options)
        self._methods: dict[str, tuple[grpc.Channel, Any]] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._sent("__call__", arguments, options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        return self._sent("with_call", arguments, options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        return self._sent("future", arguments, options)

    def _sent(self, way: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        metadata = options.get("metadata")
        session_id = session_of(metadata)
        for again in (self._unary, False):
            address = self._owners.owner(session_id)
            options["metadata"] = told = self._owners.told(session_id, metadata)
            try:
                if address:
                    result = self._sent_to(
                        Waiter(address, session_id, told, since_of(arguments[0])), way, arguments, options
                    )
                else:
                    result = getattr(self._main, way)(*arguments, **options)
                answered(result[0] if way == "with_call" else result)
            except Vanished:
                raise
            except grpc.RpcError as error:
                if self._owners.note(session_id, address, error) and again:
                    continue
                raise
            if isinstance(result, grpc.Future):  # a stream, which fails while it is read
                result.add_done_callback(partial(self._over, session_id, address))
            elif address:
                self._owners.answered(address)
            return result
        raise AssertionError("the second attempt neither failed nor succeeded")

    def _sent_to(self, waiter: Waiter, way: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Calls a server, and gives that up when it vanishes; raises Vanished then."""
        number, result = self._watch.begin(waiter), None
        try:
            result = getattr(self._at(waiter.address), way)(*arguments, **options)
        except (grpc.RpcError, ValueError) as error:
            closed = isinstance(error, ValueError) and self._owners.to(waiter.address) is self._owners.main
            if waiter.gone or closed:
                raise Vanished(waiter.address) from None
            raise
        finally:
            if isinstance(result, grpc.Future):
                result.add_done_callback(lambda _: self._watch.end(number))
            else:
                self._watch.end(number)
        return result

    def _over(self, session_id: str, address: str, call: Any) -> None:
        self._owners.note(session_id, address, call)

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
