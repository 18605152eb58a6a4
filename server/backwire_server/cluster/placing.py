"""Where sessions go, how many workers there should be, and which session moves: decisions, from loads alone."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from backwire_server.cluster.load import Load, SessionLoad

FULL = 0.9
"""The part of a worker's memory beyond which it gets no new sessions, as long as another has less."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When the number of workers changes, and when sessions move.

    Attributes:
        tick: The seconds between two looks at the workers.
        high: The mean part of processors or memory in use from which on there are too few workers.
        low: That part, on one worker less, below which there are too many.
        up_seconds: How long there must be too few before there is another.
        down_seconds: How long there must be too many before one goes.
        spread: By how much the fullest worker must be fuller than the emptiest before a session moves.
        rest_seconds: How long nothing moves after a move, so that its effect is seen.
    """

    tick: float = 1.0
    high: float = 0.75
    low: float = 0.5
    up_seconds: float = 5.0
    down_seconds: float = 120.0
    spread: float = 0.3
    rest_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Move:
    """A session that is to go from one worker to another."""

    session_id: str
    source: str
    target: str


def for_new(loads: Collection[Load], placed: Mapping[str, int]) -> str | None:
    """Returns the worker to make a session on; None where there is no worker.

    It is one of those that do not hang, of these one that has memory left, of these one that is least full, by tenths,
    and of these the one with the fewest sessions. `placed` tells how many were made on each since it told its load.
    """
    if not loads:
        return None
    fittest = min(
        loads,
        key=lambda load: (
            load.hangs,
            load.memory >= FULL,
            round(load.pressure, 1),
            load.awake + placed.get(load.worker, 0),
            load.worker,
        ),
    )
    return fittest.worker


def to_move(loads: Collection[Load], policy: Policy) -> Move | None:
    """Returns the session whose move from the fullest worker to the emptiest leaves the fuller of them least full.

    None when these differ by no more than the policy's spread, or when no move leaves both less full than the fullest
    is now, and the emptiest with memory for others.
    """
    if len(loads) < 2:
        return None
    full = max(loads, key=lambda load: (load.pressure, load.worker))
    empty = min(loads, key=lambda load: (load.pressure, load.worker))
    if full.pressure - empty.pressure <= policy.spread:
        return None
    outcomes = [(_outcome(full, empty, session), session.session_id) for session in full.sessions]
    pressure, session_id = min(outcomes, default=(full.pressure, ""))
    return Move(session_id, full.worker, empty.worker) if pressure < full.pressure else None


def _outcome(full: Load, empty: Load, session: SessionLoad) -> float:
    """Returns how full the fuller of two workers would be after a move; 1 where the other would have no memory left."""
    there = (empty.nbytes + session.nbytes) / empty.most_bytes
    if there >= FULL:
        return max(full.pressure, 1.0)
    here = (full.nbytes - session.nbytes) / full.most_bytes
    return max(full.busy - session.busy, here, empty.busy + session.busy, there)


def places(nodes: Iterable[Mapping[str, float]], asked: Mapping[str, float]) -> int:
    """Returns for how many workers nodes have what each asks for; `nodes` tells how much each has of what."""
    return sum(min(math.floor(node.get(name, 0) / amount) for name, amount in asked.items()) for node in nodes)


def to_drain(loads: Collection[Load]) -> str:
    """Returns the worker that has the least to do, of several the one with the last name."""
    least = min((load.pressure, load.awake) for load in loads)
    return max(load.worker for load in loads if (load.pressure, load.awake) == least)


def free_name(prefix: str, taken: Collection[str]) -> str:
    """Returns the prefix with the lowest number from 0 on that is not taken."""
    return next(name for number in count() if (name := f"{prefix}{number}") not in taken)


class Scaler:
    """Decides how many workers there should be, from what they tell over time."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._few_since: float | None = None
        self._many_since: float | None = None

    def wanted(self, loads: Sequence[Load], workers: int, least: int, most: int, now: float) -> int:
        """Returns how many there should be of `workers`: the least that there may be, one more, one less, or as many.

        `now` is the time in seconds. Nothing else is decided before all that there are have told their load.
        """
        if workers < least:
            return least
        if len(loads) < workers:
            self._few_since = self._many_since = None
        elif workers > most:
            return workers - 1
        else:
            few = workers < most and _mean(loads, workers) >= self._policy.high
            many = workers > least and _mean(loads, workers - 1) < self._policy.low
            self._few_since = _since(self._few_since, few, now)
            self._many_since = _since(self._many_since, many, now)
            if self._few_since is not None and now - self._few_since >= self._policy.up_seconds:
                self._few_since = None
                return workers + 1
            if self._many_since is not None and now - self._many_since >= self._policy.down_seconds:
                self._many_since = None
                return workers - 1
        return workers


def _mean(loads: Sequence[Load], workers: int) -> float:
    """Returns how full so many workers would be on average with what these have."""
    return max(sum(load.busy for load in loads), sum(load.memory for load in loads)) / workers


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before
