"""Serves a gateway to the workers of a Ray cluster until told to end. Needs the extra `ray`."""

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from backwire_server import lifetime
from backwire_server.cluster import actors
from backwire_server.cluster.controller import GATEWAY_SECONDS
from backwire_server.cluster.gateway import Gateway
from backwire_server.cluster.load import View
from backwire_server.cluster.placing import Policy
from backwire_server.cluster.signs import Signs
from backwire_server.cluster.worker import settings_of
from backwire_server.config import Config
from backwire_server.telemetry.endpoint import serving
from backwire_server.telemetry.merging import merged

START_SECONDS = 120.0
"""How long the first worker may take to serve."""

ANSWER_SECONDS = 10.0
END_SECONDS = 30.0
"""What the workers have on top of the grace to end, when the last gateway does."""

_LOG = logging.getLogger("backwire.cluster")

STANDARD = Policy()


def serve(settings: Config, stop: threading.Event, announce: Callable[[str], None], policy: Policy = STANDARD) -> bool:
    """Serves until `stop` is set, and returns whether all calls had come to their end by then.

    Calls `announce` with the address once a worker serves. Where no other gateway is left, the workers end, too.
    Raises OSError, ConfigError when the address, the cluster or a worker cannot be had.
    """
    assert settings.cluster.ray is not None
    actors.connect(settings.cluster.ray)
    try:
        for host in actors.hosts():
            settings_of(settings, "any", host)
        membership = Membership(settings, policy)
        try:
            return asyncio.run(_serve(settings, stop, announce, membership))
        finally:
            membership.leave(settings.grace)
    finally:
        ray.shutdown()


class Membership:
    """A gateway's place among those that the controller knows; it starts the controller where there is none."""

    def __init__(self, settings: Config, policy: Policy) -> None:
        """Raises OSError when the cluster has workers with other settings, or that end at this moment."""
        common = replace(settings, listen="127.0.0.1:0", metrics_listen=None, exit_with_parent=False)
        common = replace(common, cluster=replace(common.cluster, ray="auto"))
        self._name = secrets.token_hex(6)
        self._controller = actors.controller(common, policy)
        try:
            problem = ray.get(self._controller.join.remote(self._name, common), timeout=START_SECONDS)
        except RayError as error:  # the last gateway ends it
            raise OSError(f"the controller of the workers does not answer: {error}; start this gateway again") from None
        if problem:
            raise OSError(problem)

    def view(self) -> View:
        """Returns the workers as the controller has them; raises RayError, TimeoutError."""
        found: View = self._ask("view", self._name)
        return found

    def metrics(self) -> dict[str, str]:
        """Returns the figures of each worker by its name; nothing when the controller does not answer."""
        try:
            found: dict[str, str] = self._ask("metrics")
        except (RayError, TimeoutError):
            return {}
        return found

    def leave(self, grace: float) -> None:
        """Ends the workers in good order, where no other gateway is there any more."""
        try:
            last = self._ask("leave", self._name, within=2 * GATEWAY_SECONDS)
            if last and ray.get(self._controller.end.remote(), timeout=grace + END_SECONDS):
                ray.kill(self._controller)
        except (RayError, TimeoutError) as error:
            _LOG.warning("the workers go on: %s", error)

    def _ask(self, method: str, *arguments: Any, within: float = ANSWER_SECONDS) -> Any:
        return ray.get(getattr(self._controller, method).remote(*arguments), timeout=within)


async def _serve(
    settings: Config, stop: threading.Event, announce: Callable[[str], None], membership: Membership
) -> bool:
    ending = lifetime.in_loop(stop)
    gateway = Gateway(settings)
    assert settings.keeping.data_dir is not None
    signs = Signs(settings.keeping.data_dir, settings.keeping.lease)
    watching = asyncio.create_task(_watch(gateway, membership, signs))

    def expose() -> bytes:
        return merged({"gateway": gateway.metrics_here.exposition().decode(), **membership.metrics()})

    try:
        await _first(gateway, membership, ending)
        await gateway.open()
        with serving(settings, expose):
            announce(gateway.address)
            await ending.wait()
    finally:
        _LOG.info("shutting down")
        drained = await gateway.stop(settings.grace)
        watching.cancel()
    return drained


async def _first(gateway: Gateway, membership: Membership, ending: asyncio.Event) -> None:
    """Waits for the first worker; raises OSError when none comes."""
    told = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while not ending.is_set():
                view = await _view(membership)
                if any(load.takes_calls for load in view.loads):
                    gateway.update(view.loads)
                    return
                if view.problem:
                    raise OSError(f"a worker could not be started: {view.problem}")
                told = _tell(view.waiting, told)
                await asyncio.sleep(0.2)
            return
    raise OSError(f"no worker served within {START_SECONDS:g} s; {told or 'its node is slow, see `ray status`'}")


async def _view(membership: Membership) -> View:
    """Returns what `Membership.view` does, nothing when there is no answer in time; raises OSError."""
    try:
        return await asyncio.to_thread(membership.view)
    except TimeoutError:
        return View()
    except RayError as error:
        raise OSError(
            f"Ray lost the controller of the workers before one served: {error}; start this gateway again"
        ) from None


async def _watch(gateway: Gateway, membership: Membership, signs: Signs) -> None:
    """Keeps the gateway to what the controller tells; while that is started anew, to what it told last.

    Workers that have fallen silent are none: calls in progress there end, and others may have their sessions.
    """
    told = ""
    while True:
        await asyncio.sleep(0.5)
        try:
            view = await asyncio.to_thread(membership.view)
            silent = await asyncio.to_thread(signs.silent, [load.worker for load in view.loads])
            gateway.update([load for load in view.loads if load.worker not in silent])
            told = _tell(view.problem or view.waiting, told)
        except (RayError, TimeoutError, OSError) as error:
            _LOG.warning("the workers are not known anew: %s", error)


def _tell(problem: str, told: str) -> str:
    """Logs why there are fewer workers than there should be, if that is not what was told last; returns it."""
    if problem and problem != told:
        _LOG.warning("there are fewer workers than there should be: %s", problem)
    return problem
