"""Watches over the workers of a cluster: how many there are, what they have to do, and which sessions move.

It is an actor that Ray starts again when it has ended. What it knows, the cluster tells it: so it keeps nothing.
"""

import logging
import threading
import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from backwire_server.cluster import actors
from backwire_server.cluster.load import Load, View
from backwire_server.cluster.placing import Policy, Scaler, free_name, to_drain, to_move
from backwire_server.cluster.roster import Roster
from backwire_server.config import Config

ANSWER_SECONDS = 2.0
"""How long a worker may take to tell its load."""

LATE_SECONDS = 30.0
"""How long a worker may take from when it is asked for until it serves, before that is told."""

MUTE_SECONDS = 30.0
"""After how long a worker that told its load and tells it no more is ended, so that Ray starts it anew."""

DRAIN_SECONDS = 10.0
"""What a worker has on top of the grace to end in good order, before it is killed."""

QUIET_SECONDS = 5.0
"""How long calls in progress go on with a worker that does not tell its load; new ones go to others at once."""

FIRST_SECONDS = 2 * ANSWER_SECONDS
"""How long a gateway waits until a controller that is new has asked the workers."""

GATEWAY_SECONDS = 10.0
"""After how long a gateway that asks no more counts as gone, when another ends."""

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
        self._roster = Roster(actors.workers())
        self._signs = threading.Condition()
        self._gateways: dict[str, float] = {}
        self._problem = self._waiting = ""
        self._hanging: set[str] = set()
        self._pause_until = self._rest_until = 0.0
        self._ends: dict[str, threading.Thread] = {}
        self._looked, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="backwire-controller", daemon=True)
        self._thread.start()

    def join(self, gateway: str, settings: Config) -> str:
        """Notes a gateway; returns why it cannot be one, if that is so."""
        if settings != self._settings:
            return "the cluster has workers with other settings; give this gateway the same, or end the others first"
        with self._signs:
            if self._ending.is_set():
                return "the workers end, as the last gateway did; start this one again in a moment"
            self._note(gateway)
        return ""

    def view(self, gateway: str) -> View:
        """Returns the workers that may have calls, and what keeps others from being there.

        Notes that a gateway lives. Where this controller is new, the workers have been asked before it returns: one
        that is not told counts as gone, and its calls in progress end.
        """
        with self._signs:
            self._note(gateway)
        self._looked.wait(FIRST_SECONDS)
        return View(tuple(self._roster.known(time.monotonic() - QUIET_SECONDS)), self._problem, self._waiting)

    def leave(self, gateway: str) -> bool:
        """Notes that a gateway ends, and tells whether it was the last.

        Waits for a sign of the others, if there were any: those that give none for GATEWAY_SECONDS are gone. A gateway
        that is not known is one of before this controller was started anew, and so others may be.
        """
        with self._signs:
            known = self._gateways.pop(gateway, None) is not None
            self._signs.notify_all()
            others = dict(self._gateways)
            if others or not known:
                now = time.monotonic()
                patience = max(others.values(), default=now) + GATEWAY_SECONDS - now
                if self._signs.wait_for(lambda: self._gateways != others, patience):
                    return False
            self._gateways.clear()
            return True

    def metrics(self) -> dict[str, str]:
        """Returns the figures of each worker by its name; none of a mute one."""
        serving, staying = {load.worker for load in self._roster.loads}, self._roster.staying
        asked = {worker.metrics.remote(): name for name, worker in staying.items() if name in serving}
        return {asked[ref]: text for ref, text in _answers(list(asked)).items() if isinstance(text, str)}

    def end(self) -> bool:
        """Ends all workers in good order, and returns True; False where a gateway has come since the last one left."""
        with self._signs:
            if self._gateways:
                return False
            self._ending.set()
        self._thread.join()
        for name in self._roster.names:
            self._end(name)
        for thread in list(self._ends.values()):
            thread.join()
        return True

    @property
    def _well(self) -> list[Load]:
        """What the workers told last that take new calls and can do them."""
        return [load for load in self._roster.loads if not load.hangs]

    def _note(self, gateway: str) -> None:
        self._gateways[gateway] = time.monotonic()
        self._signs.notify_all()

    def _watch(self) -> None:
        while not self._ending.is_set():
            try:
                self._look()
                self._looked.set()
                self._scale()
                self._balance()
            except Exception:
                _LOG.exception("the workers could not be looked at")
            self._ending.wait(self._policy.tick)

    def _look(self) -> None:
        """Asks all workers for their load; forgets those that are gone for good, and ends those that are mute."""
        asked = {worker.load.remote(): name for name, worker in self._roster.staying.items()}
        told = {asked[ref]: answer for ref, answer in _answers(list(asked)).items()}
        now = time.monotonic()
        self._roster.hear(told, now)
        for load in self._roster.loads:
            self._problem = ""
            if not load.takes_calls:  # a controller before this one began to end it
                self._end(load.worker)
        for name, answer in told.items():
            if isinstance(answer, ActorDiedError):
                self._lose(name, answer)
        for name, worker in self._roster.mute(now - MUTE_SECONDS).items():
            _LOG.error("%s is mute, and is started anew", name)
            ray.kill(worker, no_restart=False)
        self._waiting = "; ".join(filter(None, [self._hang(), self._wait_of(now)]))

    def _hang(self) -> str:
        """Notes and returns which workers wait for their data directories; a start anew would help no directory."""
        found = {load.worker for load in self._roster.loads if load.hangs}
        told = ", ".join(sorted(found))
        if found != self._hanging:
            _LOG.warning("the data directories hang of: %s", told or "no worker any more")
        self._hanging = found
        return f"the data directory of {told} hangs" if found else ""

    def _wait_of(self, now: float) -> str:
        """Returns what those wait for that were asked for, once it is known or they are late."""
        absent = [name for name in self._roster.absent() if name in self._roster.staying]
        if not absent:
            return ""
        asked = ", ".join(f"{name} {amount:,}" for name, amount in actors.asked(self._settings).items())
        told = f"no room is found for {', '.join(absent)}, each with {asked}"
        if not actors.room(self._settings):
            return f"{told}: no node has as much; add one that has, or ask for less"
        if self._roster.absent(now - LATE_SECONDS):
            return f"{told}: no node has as much free, or it is slow; see `ray status`"
        return ""

    def _lose(self, name: str, error: Exception) -> None:
        self._problem = str(error)
        self._pause_until = time.monotonic() + PAUSE_SECONDS
        _LOG.error("%s has ended: %s", name, error)
        self._roster.forget(name)

    def _scale(self) -> None:
        cluster, now = self._settings.cluster, time.monotonic()
        most = max(cluster.min_workers, cluster.max_workers or actors.room(self._settings))
        serving, hanging = self._well, len(self._hanging)
        if hanging and not serving:
            return
        # those that hang neither work nor end: the others are as many as there may be besides
        count, least = len(self._roster.staying) - hanging, max(cluster.min_workers - hanging, 1)
        wanted = self._scaler.wanted(serving, count, least, max(most - hanging, least), now)
        if wanted < count:
            name = to_drain(serving)
            _LOG.info("%s has too little to do, and ends", name)
            self._end(name)
        elif now >= self._pause_until:
            for _ in range(wanted - count):
                name = free_name(actors.PREFIX, self._roster.names)
                _LOG.info("%s is started", name)
                self._roster.add(name, actors.start_worker(self._settings, name))

    def _balance(self) -> None:
        now = time.monotonic()
        move = to_move(self._well, self._policy)
        if move is None or now < self._rest_until:
            return
        self._rest_until = now + self._policy.rest_seconds
        moved = self._roster.actor(move.source).move.remote(move.session_id, move.target)
        told = _answers([moved]).get(moved)
        shown = move.session_id[:8]
        _LOG.info("session %s… from %s to %s: %s", shown, move.source, move.target, told or "not answered yet")

    def _end(self, name: str) -> None:
        """Has a worker end in good order, in a thread of its own, unless it does already."""
        if self._roster.retire(name):
            thread = self._ends[name] = threading.Thread(target=self._drain, args=(name,), daemon=True)
            thread.start()

    def _drain(self, name: str) -> None:
        worker = self._roster.actor(name)
        try:
            if name not in self._roster.absent():  # else it has no sessions, and perhaps no process
                ray.get(worker.drain.remote(), timeout=self._settings.grace + DRAIN_SECONDS)
        except (RayError, TimeoutError) as error:
            _LOG.warning("%s did not end in good order: %s", name, error)
        ray.kill(worker)
        self._roster.forget(name)


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
