"""TransportBase: how calls on a channel behave, whether they are awaited or not."""

import copy
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

from backwire._errors_service import ClientClosedError
from backwire._wire import _tracing
from backwire._wire._retry import Attempts, Budget, Retry
from backwire._wire._stub import Stub
from backwire._wire._timeout import Timeout, positive
from backwire_api.v1 import gradient_service_pb2 as service_pb2

Metadata = tuple[tuple[str, str], ...]

PIPELINE = "/backwire_api.v1.GradientService/Pipeline"

VERSION_REQUEST = service_pb2.GetStatusRequest(max_sessions=1)
"""What a server is asked that does not have a call, to learn of which version it is."""

VERSION_SECONDS = 5.0

SESSION_KEY = "backwire-session-id"
"""The metadata by which a load balancer sends a call to the replica that keeps its session."""

REQUEST_KEY = "backwire-request-id"
"""The metadata by which it sends the repetition of a call that makes a session to where it was sent before."""

LONGEST_NAME = 128  # in metadata, of which servers take 8 KiB; no id that they make is as long

SHOWN = 8
"""How much of the id of a session is told in a trace."""

_NO_SPAN = nullcontext()


class TransportBase:
    """A channel, the metadata of its calls, and how long and how often they are tried."""

    def __init__(self, channel: Any, *, token: str | None, timeout: Timeout | float | None, retry: Retry) -> None:
        """Takes over the channel; `timeout` holds for calls that are given none of their own."""
        self.stub = Stub(channel)
        self._channel = channel
        self._pipeline: Any = channel.stream_stream(PIPELINE)
        self._metadata: Metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._timeout = Timeout.of(timeout)
        self._retry = retry
        self.budget = Budget(retry.rate)
        self._closed = threading.Event()

    def naming(self, key: str, name: str) -> Self:
        """Returns a transport on the same channel, closed together with this one, whose calls have a name in metadata.

        It takes the place of another under the same key, and is left out where metadata cannot have it.
        """
        found = copy.copy(self)
        others = tuple(entry for entry in self._metadata if entry[0] != key)
        fits = 0 < len(name) <= LONGEST_NAME and name.isascii() and name.isprintable()
        found._metadata = (*others, (key, name)) if fits else others
        return found

    def attempts(self, seconds: float) -> Attempts:
        """Returns what a call may still do that begins now and may take so many seconds."""
        return Attempts(self._retry, self.budget, seconds)

    def patience(self, timeout: float | None, kind: Literal["call", "transfer", "answer"] = "call") -> float:
        """Returns the seconds that a call of a kind may take, the default for None.

        Raises InvalidRequestError for a timeout that leaves no time.
        """
        default: float = getattr(self._timeout, kind)
        return default if timeout is None else positive(timeout)

    def span(self, rpc: object = None) -> "AbstractContextManager[_tracing.CallSpan | None]":
        """Returns the span of a call of a method of the stub, None for Pipeline; gives None where nobody traces."""
        tracer = _tracing.tracer()
        if tracer is None:
            return _NO_SPAN
        method = next((name for name in Stub.__annotations__ if getattr(self.stub, name) is rpc), "Pipeline")
        return _tracing.CallSpan(tracer, method, dict(self._metadata).get(SESSION_KEY, "")[:SHOWN])

    def _told(self) -> Metadata:
        """The metadata of a call that is sent now, which tell of the trace that it is a part of."""
        return (*self._metadata, *_tracing.headers())

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClientClosedError("the client was closed; connect again")
