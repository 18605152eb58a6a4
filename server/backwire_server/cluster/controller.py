"""Watches over the workers of a cluster: how many there are, what they have to do, and which sessions move.

It is an actor that Ray starts again when it has ended. What it knows, the cluster tells it: so it keeps nothing.
"""

import logging
import threading
import time
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from backwire_server.cluster import actors
from backwire_server.cluster.load import Load
from backwire_server.cluster.placing import Policy, Scaler, free_name, to_drain, to_move
from backwire_server.config import Config

ANSWER_SECONDS = 2.0
"""How long a worker may take to tell its load."""

MUTE_SECONDS = 30.0
"""After how long a worker that told its load and tells it no more is ended, so that Ray starts it anew."""

DRAIN_SECONDS = 10.0
"""What a worker has on top of the grace to end in good order, before it is killed."""

GATEWAY_SECONDS = 10.0
"""After how long a gateway that asks no more counts as gone."""

PAUSE_SECONDS = 5.0
"""How long no worker is started after one could not be made."""

_LOG = logging.getLogger("backwire.cluster")


class Controller:
    """Has as many workers as there should be, as an actor of several threads, until `end`."""

    def __init__(self, settings: Config, policy: Policy) -> None:
        """Takes over the workers that there are already."""
        from backwire_server.rpc import logs

        logs.configure(settings.log_level, access_log=False)
        self._settings = settings
        self._policy = policy
        self._scaler = Scaler(policy)
        self._mutex = threading.Lock()
        self._workers: dict[str, Any] = actors.workers()
        self._loads: dict[str, Load] = {}
        self._heard: dict[str, float] = {}
        self._draining: set[str] = set()
        self._gateways: dict[str, float] = {}
        self._problem = ""
        self._pause_until = self._rest_until = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="backwire-controller", daemon=True)
        self._thread.start()

    def join(self, gateway: str, settings: Config) -> str:
        """Notes a gateway; returns why it cannot be one, if that is so."""
        self.view(gateway)
        if settings != self._settings:
            return "the cluster has workers with other settings; give this gateway the same, or end the others first"
        return ""

    def view(self, gateway: str) -> tuple[list[Load], str]:
        """Returns the workers that take calls, without sessions, and what keeps others from being there.

        Notes that a gateway lives.
        """
        with self._mutex:
            self._gateways[gateway] = time.monotonic()
            serving = [load for name, load in self._loads.items() if name not in self._draining]
            return [replace(load, sessions=()) for load in serving], self._problem

    def leave(self, gateway: str) -> bool:
        """Notes that a gateway ends, and tells whether it was the last."""
        with self._mutex:
            self._gateways.pop(gateway, None)
            recent = time.monotonic() - GATEWAY_SECONDS
            return all(heard < recent for heard in self._gateways.values())

    def metrics(self) -> dict[str, str]:
        """Returns the figures of each worker by its name; none of a mute one."""
        with self._mutex:
            asked = {self._workers[name].metrics.remote(): name for name in self._loads if name in self._workers}
        return {asked[ref]: text for ref, text in _answers(list(asked)).items() if isinstance(text, str)}

    def end(self) -> None:
        """Ends all workers in good order."""
        self._ending.set()
        self._thread.join()
        threads = [threading.Thread(target=self._drain, args=(name,)) for name in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(self._policy.tick):
            try:
                self._look()
                self._scale()
                self._balance()
            except Exception:
                _LOG.exception("the workers could not be looked at")

    def _look(self) -> None:
        """Asks all workers for their load; forgets those that are gone for good, and ends those that are mute."""
        asked = {worker.load.remote(): name for name, worker in self._workers.items() if name not in self._draining}
        found = {asked[ref]: told for ref, told in _answers(list(asked)).items()}
        now = time.monotonic()
        with self._mutex:
            self._loads = {name: told for name, told in found.items() if isinstance(told, Load)}
            self._heard |= dict.fromkeys(self._loads, now)
            for name in found.keys() - self._loads.keys():  # Ray starts it anew, and says so
                self._heard.pop(name, None)
        if self._loads:
            self._problem = ""
        for name, told in found.items():
            if isinstance(told, ActorDiedError):
                self._lose(name, told)
        for name in [name for name, heard in self._heard.items() if now - heard > MUTE_SECONDS]:
            _LOG.error("%s is mute, and is started anew", name)
            del self._heard[name]
            ray.kill(self._workers[name], no_restart=False)

    def _lose(self, name: str, error: Exception) -> None:
        self._problem = str(error)
        self._pause_until = time.monotonic() + PAUSE_SECONDS
        _LOG.error("%s has ended: %s", name, error)
        self._forget(name)

    def _forget(self, name: str) -> None:
        with self._mutex:
            self._workers.pop(name, None)
            self._heard.pop(name, None)
            self._loads.pop(name, None)
            self._draining.discard(name)

    def _scale(self) -> None:
        cluster, now = self._settings.cluster, time.monotonic()
        serving = [load for name, load in self._loads.items() if name not in self._draining]
        count = len(self._workers) - len(self._draining)
        most = max(cluster.min_workers, cluster.max_workers or actors.room(self._settings))
        wanted = self._scaler.wanted(serving, count, cluster.min_workers, most, now)
        if wanted < count:
            name = to_drain(serving)
            _LOG.info("%s has too little to do, and ends", name)
            with self._mutex:
                self._draining.add(name)
            threading.Thread(target=self._drain, args=(name,), daemon=True).start()
        elif now >= self._pause_until:
            for _ in range(wanted - count):
                name = free_name(actors.PREFIX, self._workers)
                _LOG.info("%s is started", name)
                self._workers[name] = actors.start_worker(self._settings, name)

    def _balance(self) -> None:
        now = time.monotonic()
        loads = [load for name, load in self._loads.items() if name not in self._draining]
        move = to_move(loads, self._policy)
        if move is None or now < self._rest_until:
            return
        self._rest_until = now + self._policy.rest_seconds
        moved = self._workers[move.source].move.remote(move.session_id, move.target)
        told = _answers([moved]).get(moved)
        shown = move.session_id[:8]
        _LOG.info("session %s… from %s to %s: %s", shown, move.source, move.target, told or "not answered yet")

    def _drain(self, name: str) -> None:
        worker = self._workers[name]
        try:
            ray.get(worker.drain.remote(), timeout=self._settings.grace + DRAIN_SECONDS)
        except (RayError, TimeoutError) as error:
            _LOG.warning("%s did not end in good order: %s", name, error)
        ray.kill(worker)
        self._forget(name)


def _answers(asked: list[Any]) -> dict[Any, Any]:
    """Returns what actors answered within ANSWER_SECONDS, or the error instead of it, by what they were asked."""
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    found: dict[Any, Any] = {}
    for ref in ready:
        try:
            found[ref] = ray.get(ref)
        except RayError as error:
            found[ref] = error
    return found
