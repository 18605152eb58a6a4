"""Goes straight to the server that has a session, where several share a directory and the target is any of them."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from backwire._errors import BackwireError
from backwire._transport_base import SESSION_KEY
from backwire_api.reasons import DOMAIN, Reason

PAUSE_SECONDS = 0.5
"""How long a server that went away is not gone to, while others may still name it."""

LONG_PAUSE_SECONDS = 10.0
"""The same for one that never answered, which may be out of this client's reach."""


class FollowingChannel(grpc.Channel):
    """A channel to servers that tell which of them has a session: its calls go there from then on.

    A server that does not have it answers WRONG_REPLICA and the owner's address. Such a unary call is sent on at once;
    a stream ends with that, and is begun anew by whoever has it. When the owner cannot be reached, calls go by the
    first channel again. May be used by several threads at once.
    """

    def __init__(self, main: grpc.Channel, open_channel: Callable[[str], grpc.Channel]) -> None:
        """Takes over `main`; opens others by address."""
        self.main = main
        self._open_channel = open_channel
        self._mutex = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._owners: dict[str, str] = {}
        self._answered: set[str] = set()
        self._paused: dict[str, float] = {}

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return _Method(self, "stream_stream", arguments, options)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """As grpc.Channel, of the first connection."""
        self.main.subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Any) -> None:
        """As grpc.Channel, of the first connection."""
        self.main.unsubscribe(callback)

    def close(self) -> None:
        """As grpc.Channel, of all connections."""
        with self._mutex:
            channels = [self.main, *self._channels.values()]
        for channel in channels:
            channel.close()

    def __enter__(self) -> "FollowingChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def owner(self, session_id: str) -> str:
        """Returns the address at which a session is called; empty for that of the first channel."""
        return self._owners.get(session_id, "")

    def to(self, address: str) -> grpc.Channel:
        """Returns the channel to an address."""
        return self._channels[address] if address else self.main

    def answered(self, address: str) -> None:
        """Learns that a call to an address succeeded."""
        self._answered.add(address)

    def note(self, session_id: str, address: str, call: Any) -> bool:
        """Learns from a call to an address that is over; tells whether it should go elsewhere at once."""
        if call.code() is not grpc.StatusCode.UNAVAILABLE:
            self._answered.add(address)
            return False
        reason, owner = _told(call)
        with self._mutex:
            if address and reason in ("", Reason.SHUTTING_DOWN):
                seconds = PAUSE_SECONDS if reason or address in self._answered else LONG_PAUSE_SECONDS
                self._paused[address] = time.monotonic() + seconds
            if reason in ("", Reason.SHUTTING_DOWN, Reason.WRONG_REPLICA):
                self._owners.pop(session_id, None)
            if reason != Reason.WRONG_REPLICA or owner in ("", address):
                return False
            return self._follow(session_id, owner)

    def _follow(self, session_id: str, owner: str) -> bool:
        if time.monotonic() < self._paused.get(owner, 0.0):
            return False
        if owner not in self._channels:
            try:
                self._channels[owner] = self._open_channel(owner)
            except BackwireError:  # a token would travel in clear text, or it is no address
                return False
        self._owners[session_id] = owner
        return True


class _Method:
    """A method of the service that is called where the session is."""

    def __init__(self, channel: FollowingChannel, kind: str, arguments: tuple[Any, ...], options: Any) -> None:
        self._channel = channel
        self._make = kind, arguments, options
        self._unary = kind == "unary_unary"
        self._methods = {"": getattr(channel.main, kind)(*arguments, **options)}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._sent("__call__", arguments, options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        return self._sent("with_call", arguments, options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        return self._sent("future", arguments, options)

    def _sent(self, way: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        session_id = _session(options.get("metadata"))
        for again in (self._unary, False):
            address = self._channel.owner(session_id)
            try:
                result = getattr(self._at(address), way)(*arguments, **options)
            except grpc.RpcError as error:
                if self._channel.note(session_id, address, error) and again:
                    continue
                raise
            if isinstance(result, grpc.Future):  # a stream, which fails while it is read
                result.add_done_callback(partial(self._over, session_id, address))
            elif address:
                self._channel.answered(address)
            return result
        raise AssertionError("the second attempt neither failed nor succeeded")

    def _over(self, session_id: str, address: str, call: Any) -> None:
        self._channel.note(session_id, address, call)

    def _at(self, address: str) -> Any:
        method = self._methods.get(address)
        if method is None:
            kind, arguments, options = self._make
            method = self._methods[address] = getattr(self._channel.to(address), kind)(*arguments, **options)
        return method


def _session(metadata: Any) -> str:
    return next((value for key, value in metadata or () if key == SESSION_KEY), "")


def _told(call: Any) -> tuple[str, str]:
    """Returns the reason that the server told of a failure, and the owner; empty for none."""
    try:
        status = rpc_status.from_call(call)
    except Exception:  # whatever a proxy put there
        return "", ""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info.reason, info.metadata.get("owner", "")
    return "", ""
