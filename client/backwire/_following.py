"""Goes straight to the server that has a session, where several share a directory and the target is any of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from backwire._owners import Owners, session_of


class FollowingChannel(grpc.Channel):
    """A channel to servers that tell which of them has a session: its calls go there from then on.

    A unary call is sent on at once; a stream ends with what was told, and is begun anew by whoever has it. When the
    owner cannot be reached, calls go by the first channel again. May be used by several threads at once.
    """

    def __init__(self, main: grpc.Channel, open_channel: Callable[[str], grpc.Channel]) -> None:
        """Takes over `main`; opens others by address."""
        self.owners = Owners[grpc.Channel](main, open_channel)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self.owners, "stream_stream", arguments, options)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """As grpc.Channel, of the first connection."""
        self.owners.main.subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Any) -> None:
        """As grpc.Channel, of the first connection."""
        self.owners.main.unsubscribe(callback)

    def close(self) -> None:
        """As grpc.Channel, of all connections."""
        for channel in self.owners.channels:
            channel.close()

    def __enter__(self) -> "FollowingChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Method:
    """A method of the service that is called where the session is."""

    def __init__(self, owners: Owners[grpc.Channel], kind: str, arguments: tuple[Any, ...], options: Any) -> None:
        self._owners = owners
        self._make = kind, arguments, options
        self._unary = kind == "unary_unary"
        self._methods = {"": getattr(owners.main, kind)(*arguments, **options)}

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
            options["metadata"] = self._owners.told(session_id, metadata)
            try:
                result = getattr(self._at(address), way)(*arguments, **options)
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

    def _over(self, session_id: str, address: str, call: Any) -> None:
        self._owners.note(session_id, address, call)

    def _at(self, address: str) -> Any:
        method = self._methods.get(address)
        if method is None:
            kind, arguments, options = self._make
            method = self._methods[address] = getattr(self._owners.to(address), kind)(*arguments, **options)
        return method
