"""Moves sessions from busy nodes to others until the load is even: a session is written out, and read elsewhere."""

from bisect import bisect_right, insort
from dataclasses import dataclass

import numpy as np
from tests.capacity.costs import Array
from tests.capacity.failure import load_of

EVEN = 1.1
"""The load of the busiest node, relative to the mean, that moves stop at."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Which sessions moved, where all are then, and the load of the busiest node relative to the mean."""

    sessions: Array
    placed: Array
    imbalance: float


def rebalance(placed: Array, demand: Array, nodes: Array, most: int) -> Moves:
    """Moves active sessions, at most so many, each from the busiest node to the idlest.

    The largest goes that does not make the idlest busier than the mean of both; there may be none.
    """
    load = load_of(placed, demand, int(nodes.max()) + 1)[nodes]
    places = np.searchsorted(nodes, placed)
    sessions = _by_node(places, demand, len(nodes))
    moved: list[int] = []
    to = placed.copy()
    while len(moved) < most:
        busy, idle = int(load.argmax()), int(load.argmin())
        fitting = bisect_right(sessions[busy], ((load[busy] - load[idle]) / 2, len(placed)))
        if load[busy] <= EVEN * load.mean() or not fitting:
            break
        amount, session = sessions[busy].pop(fitting - 1)
        insort(sessions[idle], (amount, session))
        load[busy] -= amount
        load[idle] += amount
        to[session] = nodes[idle]
        moved.append(session)
    return Moves(np.array(moved, np.int64), to, float(load.max() / load.mean()))


def _by_node(places: Array, demand: Array, count: int) -> list[list[tuple[float, int]]]:
    """Returns the active sessions of each node with what they demand, the least first."""
    active = np.flatnonzero(demand)
    active = active[np.lexsort((active, demand[active], places[active]))]
    parts = np.split(active, np.searchsorted(places[active], np.arange(1, count)))
    return [list(zip(demand[part].tolist(), part.tolist(), strict=True)) for part in parts]
