"""Serves from several processes until told to end."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from backwire_server import lifetime
from backwire_server.config import Config
from backwire_server.telemetry.endpoint import serving
from backwire_server.telemetry.merging import merged
from backwire_server.workers.front import Front

_LOG = logging.getLogger("backwire.server")


def serve(
    settings: Config, stop: threading.Event, announce: Callable[[str], None], descriptor: int | None = None
) -> bool:
    """Serves until `stop` is set, and returns whether all calls had come to their end by then.

    Calls `announce` with the address once all workers serve; they inherit the descriptor. Raises OSError when
    the address cannot be had, or a worker does not serve.
    """
    fixed = replace(settings, workers=settings.worker_count)  # however many cores there may be later
    return asyncio.run(_serve(fixed, stop, announce, descriptor))


async def _serve(
    settings: Config, stop: threading.Event, announce: Callable[[str], None], descriptor: int | None = None
) -> bool:
    loop, ending = asyncio.get_running_loop(), lifetime.in_loop(stop)
    front = Front(settings, descriptor)
    await front.start()

    def expose() -> bytes:
        return merged(asyncio.run_coroutine_threadsafe(front.metrics(), loop).result())

    try:
        with serving(settings, expose):
            announce(front.address)
            await ending.wait()
    finally:
        _LOG.info("shutting down")
        drained = await front.stop(settings.grace)
    return drained
