"""Servers that tell where a session is, and callers that follow."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from backwire._wire._following import FollowingChannel
from backwire._wire._transport_base import SESSION_KEY
from backwire.aio import _following as aio_following
from backwire_api.metadata import FOLLOWS_KEY
from backwire_api.reasons import DOMAIN

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SECONDS = 20.0


class Server:
    """A server of two methods that answer with its name, or that another address has the session; or not, if `mute`.

    It may be behind a proxy that `reset`s streams once they are refused. If it `forwards`, that is told to those alone
    who follow; others are refused where it `reaches` it no more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner: str | None = None
        self.code, self.reason = UNAVAILABLE, "WRONG_REPLICA"
        self.reset = False
        self.forwards, self.reaches, self.followed = False, True, False
        self.calls = 0
        self.mute = False
        self._server = grpc.server(ThreadPoolExecutor(4))
        methods: dict[str, Any] = {
            "Unary": grpc.unary_stream_rpc_method_handler(lambda _, context: self._answers(context)),
            "Stream": grpc.unary_stream_rpc_method_handler(lambda _, context: iter([self._answer(context)])),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Names", methods),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _answers(self, context: Any) -> Iterator[bytes]:
        answer = self._answer(context)
        return iter([] if self.mute else [answer])

    def _answer(self, context: Any) -> bytes:
        self.calls += 1
        self.followed = FOLLOWS_KEY in dict(context.invocation_metadata())
        if self.owner is None:
            return self.name.encode()
        reason = self.reason
        if self.forwards and not self.followed:
            if self.reaches:
                return b"forwarded"
            reason = "NO_WORKER"
        info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"owner": self.owner})
        status = status_pb2.Status(code=self.code.value[0], message="elsewhere")
        status.details.add().Pack(info)
        if self.reset:
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.CANCELLED, "Received RST_STREAM with error code 8")
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("an aborted call goes on")


class Caller:
    """A client that first asks the server `first`."""

    def __init__(self, first: Server, open_channel: Callable[[str], grpc.Channel] = grpc.insecure_channel) -> None:
        self.channel = FollowingChannel(grpc.insecure_channel(first.address), open_channel)
        self._unary = self.channel.unary_unary("/test.Names/Unary")
        self._stream = self.channel.unary_stream("/test.Names/Stream")

    def unary(self, session: str = "s") -> str:
        return bytes(self._unary(b"", timeout=SECONDS, metadata=((SESSION_KEY, session),))).decode()

    def stream(self, session: str = "s") -> str:
        (answer,) = self._stream(b"", timeout=SECONDS, metadata=((SESSION_KEY, session),))
        return bytes(answer).decode()

    def close(self) -> None:
        self.channel.close()


class AwaitingCaller:
    """The same by a channel whose calls are awaited."""

    def __init__(self, first: Server) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._open(first.address))

    def unary(self, session: str = "s") -> str:
        return self._runner.run(self._call_unary(session))

    def stream(self, session: str = "s") -> str:
        return self._runner.run(self._call_stream(session))

    def close(self) -> None:
        self._runner.run(self.channel.close())
        self._runner.close()

    async def _open(self, address: str) -> None:
        self.channel = aio_following.FollowingChannel(grpc.aio.insecure_channel(address), grpc.aio.insecure_channel)
        self._unary = self.channel.unary_unary("/test.Names/Unary")
        self._stream = self.channel.unary_stream("/test.Names/Stream")

    async def _call_unary(self, session: str) -> str:
        return bytes(await self._unary(b"", timeout=SECONDS, metadata=((SESSION_KEY, session),))).decode()

    async def _call_stream(self, session: str) -> str:
        stream = self._stream(b"", timeout=SECONDS, metadata=((SESSION_KEY, session),))
        (answer,) = [each async for each in stream]
        return bytes(answer).decode()
