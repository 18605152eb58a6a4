"""The workers of a cluster as its controller knows them: what each told last, and which of them are about to end."""

import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backwire_server.cluster.load import Load


class Roster:
    """Workers, as actors by their names. May be used by several threads at once."""

    def __init__(self, workers: Mapping[str, Any]) -> None:
        """Begins with workers that have told nothing yet."""
        self._mutex = threading.Lock()
        self._workers = dict(workers)
        self._loads: dict[str, Load] = {}
        self._heard: dict[str, float] = {}
        self._ending: set[str] = set()
        self._silent: set[str] = set()
        self._absent: dict[str, float] = {}

    @property
    def names(self) -> list[str]:
        """The names of all."""
        with self._mutex:
            return list(self._workers)

    @property
    def staying(self) -> dict[str, Any]:
        """Those that are not about to end, by name."""
        with self._mutex:
            return {name: worker for name, worker in self._workers.items() if name not in self._ending}

    @property
    def loads(self) -> list[Load]:
        """What those that take new calls told last: all that are not about to end and told it when asked last."""
        with self._mutex:
            return [load for name, load in self._loads.items() if self._takes_calls(name)]

    def known(self, since: float) -> list[Load]:
        """Returns what those told last that may have calls in progress, without sessions.

        These are the ones that take new calls, those about to end, and those that told nothing when asked last but
        have since then, by the clock of `hear`.
        """
        with self._mutex:
            return [
                replace(load, sessions=(), takes_calls=self._takes_calls(name))
                for name, load in self._loads.items()
                if name not in self._silent or self._heard[name] >= since
            ]

    def absent(self, since: float = math.inf) -> list[str]:
        """Returns those that were asked first by then, by the clock of `hear`, and have told nothing yet.

        Those that have told their load once count again when they have ended by themselves, and are started anew.
        """
        with self._mutex:
            return sorted(name for name, asked in self._absent.items() if asked <= since)

    def actor(self, name: str) -> Any:
        """Returns a worker; raises KeyError when there is none of this name any more."""
        with self._mutex:
            return self._workers[name]

    def add(self, name: str, worker: Any) -> None:
        """Has one more."""
        with self._mutex:
            self._workers[name] = worker

    def hear(self, told: Mapping[str, object], now: float) -> None:
        """Notes what those that stay told when they were asked: a Load, or why there is none.

        Who is not in `told` gave no answer.
        """
        with self._mutex:
            for name, load in told.items():
                if name not in self._workers or name in self._ending:
                    continue
                if isinstance(load, Load):
                    self._absent.pop(name, None)
                    self._loads[name], self._heard[name] = load, now
                else:  # Ray starts it anew, and says so
                    self._silence(name)
            self._silent = self._loads.keys() - told.keys() - self._ending
            for name in self._workers.keys() - self._loads.keys():
                self._absent.setdefault(name, now)

    def mute(self, since: float) -> dict[str, Any]:
        """Returns those that told their load once but not since then, of whom nothing is known from now on."""
        with self._mutex:
            found = {name: self._workers[name] for name, heard in self._heard.items() if heard < since}
            for name in found:
                self._silence(name)
            return found

    def retire(self, name: str) -> bool:
        """Notes that one is about to end; False when that was known, or there is none."""
        with self._mutex:
            if name in self._ending or name not in self._workers:
                return False
            self._ending.add(name)
            self._silent.discard(name)
            self._heard.pop(name, None)  # it is asked no more
            return True

    def forget(self, name: str) -> None:
        """Has one no more, if there was one."""
        with self._mutex:
            self._workers.pop(name, None)
            self._ending.discard(name)
            self._absent.pop(name, None)
            self._silence(name)

    def _silence(self, name: str) -> None:
        self._loads.pop(name, None)
        self._heard.pop(name, None)
        self._silent.discard(name)

    def _takes_calls(self, name: str) -> bool:
        return name not in self._ending and name not in self._silent
