"""Begins to trace where that is wanted, and else needs no package for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backwire_server.telemetry.tracing import Tracer

LAST_SECONDS = 5.0
"""How long the last spans may take to be exported before the process ends."""


@contextmanager
def tracing(wanted: bool) -> "Iterator[Tracer | None]":
    """Gives what makes spans, None where they are not wanted; exports the last ones at the end. Raises ConfigError."""
    if not wanted:
        yield None
        return
    from backwire_server.telemetry.exporting import Exporting
    from backwire_server.telemetry.tracing import Tracer

    exporting = Exporting()
    try:
        yield Tracer(exporting.provider)
    finally:
        exporting.close(LAST_SECONDS)
