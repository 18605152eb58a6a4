"""Spans of calls, by OpenTelemetry, in applications that have configured it; in others this imports nothing.

A call is a span of the kind CLIENT under the global tracer provider, with its repetitions as events, and its metadata
tell the server which trace it is a part of.
"""

import sys
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from backwire._errors import BackwireError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

API = "opentelemetry.trace"
SERVICE = "backwire_api.v1.GradientService"


def tracer() -> "Tracer | None":
    """Returns what makes spans; None where the application has configured nothing that would."""
    api: Any = sys.modules.get(API)  # who configured it has imported it
    provider = getattr(api, "get_tracer_provider", None)
    found = None if provider is None else provider()
    return None if found is None or isinstance(found, api.ProxyTracerProvider) else _tracer_of(found)


def headers() -> tuple[tuple[str, str], ...]:
    """Returns the metadata that tell a server of the trace that goes on, none where there is nothing to tell."""
    if tracer() is None:
        return ()
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key.lower(), value) for key, value in carrier.items())


class CallSpan(AbstractContextManager["CallSpan"]):
    """The span of a call, as a context: whatever goes on in the block is a part of it."""

    def __init__(self, source: "Tracer", method: str, session: str) -> None:
        """Begins when the block does; `session` is the beginning of the id of the call's session, if it has one."""
        self._source = source
        self._method = method
        self._session = session
        self._stack = ExitStack()
        self._attempts = 1
        self._span: Span

    def repeated(self, error: BackwireError, wait: float) -> None:
        """Notes that the call failed and is sent again after so many seconds."""
        told: dict[str, str | int | float] = {
            "error.type": _reason(error),
            "backwire.attempt": self._attempts,
            "backwire.wait_seconds": wait,
        }
        self._span.add_event("retry", told)
        self._attempts += 1

    def __enter__(self) -> Self:
        from opentelemetry.trace import SpanKind, use_span

        attributes = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": self._method}
        if self._session:
            attributes["backwire.session"] = self._session
        self._span = self._source.start_span(f"{SERVICE}/{self._method}", kind=SpanKind.CLIENT, attributes=attributes)
        self._stack.enter_context(
            use_span(self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = _code(error)
        if code is not None:
            self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        if error is not None:
            self._fail(_reason(error))
        self._stack.close()

    def _fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR, reason))


@lru_cache(maxsize=4)
def _tracer_of(provider: "TracerProvider") -> "Tracer":
    return provider.get_tracer("backwire")


def _code(error: BaseException | None) -> "grpc.StatusCode | None":
    """Returns the status code of a call that ended with an error, or None for without one; None when it has none."""
    if error is None:
        return grpc.StatusCode.OK
    if isinstance(error, BackwireError):
        return error.code
    return error.code() if isinstance(error, grpc.Call) else None


def _reason(error: BaseException) -> str:
    """Returns in a word why a call failed: messages may have ids in them."""
    if isinstance(error, BackwireError) and error.reason is not None:
        return str(error.reason)
    code = _code(error)
    return type(error).__name__ if code is None else code.name
