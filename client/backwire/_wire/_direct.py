"""Goes straight to the process that keeps a session, past the one at the server's address that passes calls on."""

import os
import re
import stat
import threading
from collections.abc import Callable
from typing import Any

import grpc

from backwire._errors import BackwireError
from backwire._info import SessionInfo
from backwire._wire._channel import TLS, is_local, open_channel
from backwire._wire._failures import STATUS_DETAILS
from backwire._wire._transport import Transport
from backwire_api.v1 import gradient_service_pb2 as service_pb2

PROBE_SECONDS = 2.0
"""How long a process may take to say that it keeps a session, before it is called by the server's address instead."""

Send = Callable[[grpc.Channel], Transport]


class Routes:
    """The ways to sessions: one for each process that can be reached directly, and the one by the server's address.

    May be used by several threads at once.
    """

    def __init__(
        self, target: str, main: grpc.Channel, send: Send, *, token: str | None, tls: TLS | bool | None
    ) -> None:
        """Finds ways beside `main`, the channel to `target`; `send` makes a transport that owns its channel."""
        self._target = target
        self._main = main
        self._send = send
        self._token = token
        self._tls = tls
        self._mutex = threading.Lock()
        self._ways: dict[str, tuple[FallbackChannel, Transport] | None] = {}

    def to(self, session: SessionInfo) -> Transport | None:
        """Returns the direct way to a session; None when there is none, or it does not lead there."""
        if not session.address:
            return None
        with self._mutex:
            way = self._ways.get(session.address)
            if session.address not in self._ways or (way is not None and way[0].broken):
                way = self._ways[session.address] = self._find(session)
        return None if way is None else way[1]

    def close(self) -> None:
        """Closes all of them."""
        with self._mutex:
            for way in self._ways.values():
                if way is not None:
                    way[1].close()

    def _find(self, session: SessionInfo) -> "tuple[FallbackChannel, Transport] | None":
        target = direct_target(session.address, self._target)
        if target is None:
            return None
        channel = FallbackChannel(open_channel(target, token=self._token, tls=self._tls), self._main)
        transport = self._send(channel)
        try:
            request = service_pb2.GetSessionRequest(session_id=session.id)
            transport.unary(transport.stub.GetSession, request, timeout=PROBE_SECONDS)
        except BackwireError:
            channel.broken = True
        if channel.broken:
            transport.close()
            return None
        return channel, transport


def direct_target(address: str, target: str) -> str | None:
    """Returns where to call a process with this address of a server at `target`; None where it cannot be called.

    A socket must belong to this user, so that nobody else's process can pretend to be the server's; and a server on
    another machine, or so it seems, is not followed to sockets on this one.
    """
    if address.startswith("unix:"):
        if not is_local(target):
            return None
        try:
            found = os.stat(address.removeprefix("unix:"))
        except OSError:
            return None
        return address if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid() else None
    if not re.fullmatch(r":[0-9]{1,5}", address) or not re.search(r":[0-9]+$", target):
        return None
    return re.sub(r":[0-9]+$", address, target)


class FallbackChannel(grpc.Channel):
    """A channel that goes over to another for good once its own server cannot be reached.

    The call that finds this out fails, as one does whose connection breaks; the next goes the other way. Closing it
    leaves the other open.

    Attributes:
        broken: Whether it went over.
    """

    def __init__(self, direct: grpc.Channel, main: grpc.Channel) -> None:
        """Takes over `direct`."""
        self.broken = False
        self._direct = direct
        self._main = main

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return self._both("unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return self._both("unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return self._both("stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As grpc.Channel."""
        return self._both("stream_stream", arguments, options)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """As grpc.Channel, of the direct connection."""
        self._direct.subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Any) -> None:
        """As grpc.Channel, of the direct connection."""
        self._direct.unsubscribe(callback)

    def close(self) -> None:
        """As grpc.Channel, of the direct connection."""
        self._direct.close()

    def __enter__(self) -> "FallbackChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note(self, call: Any) -> None:
        """Goes over when a call, which is over, failed because the server could not be reached."""
        if call.code() is grpc.StatusCode.UNAVAILABLE and STATUS_DETAILS not in dict(call.trailing_metadata() or ()):
            self.broken = True

    def _both(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> "_Callable":
        ways = (getattr(channel, kind)(*arguments, **options) for channel in (self._direct, self._main))
        return _Callable(self, *ways)


class _Callable:
    """A method of the service that is called by the direct way as long as that is whole."""

    def __init__(self, channel: FallbackChannel, direct: Any, main: Any) -> None:
        self._channel = channel
        self._direct = direct
        self._main = main

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self._channel.broken:
            return self._main(*arguments, **options)
        try:
            result = self._direct(*arguments, **options)
        except grpc.RpcError as error:
            self._channel.note(error)
            raise
        if isinstance(result, grpc.Future):  # a stream, which fails while it is read
            result.add_done_callback(self._channel.note)
        return result

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        if self._channel.broken:
            return self._main.with_call(*arguments, **options)
        try:
            return self._direct.with_call(*arguments, **options)
        except grpc.RpcError as error:
            self._channel.note(error)
            raise

    def future(self, *arguments: Any, **options: Any) -> Any:
        if self._channel.broken:
            return self._main.future(*arguments, **options)
        result = self._direct.future(*arguments, **options)
        result.add_done_callback(self._channel.note)
        return result
