"""What happens when nodes are lost: which sessions come to others, and how long their clients wait.

Nodes that share a file server are a cell, and the sessions of one of them come to the others. Active sessions are
opened again by their next call, once their node counts as dead. Each is read from the file server, in the order of the
calls, and replayed on one core of its new node; a node does as many at a time as it has idle cores. Sleeping sessions
need nothing: they are read when they are called, wherever that is.
"""

from dataclasses import dataclass

import numpy as np
from tests.capacity.checkpoints import before, newest
from tests.capacity.costs import Array, Costs
from tests.capacity.fleet import Fleet, Setting
from tests.capacity.placement import Policy

LEAST_IDLE = 0.25
"""The cores that a node has for recovery even if it is overloaded."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The file server of each node, and the bandwidth that each file server has left, in bytes a second."""

    cells: Array
    spare: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """The outcome of a loss: the new places of all sessions, and the seconds that clients wait for a call.

    `touched` are all sessions whose place has changed, `opened` those of them that are active.
    """

    placed: Array
    touched: int
    opened: int
    waits: Array
    imbalance: float


def load_of(placed: Array, demand: Array, nodes: int) -> Array:
    """Returns the cores that are busy on each node."""
    return np.bincount(placed, weights=demand, minlength=nodes)


def cells(nodes: int, servers: int) -> Array:
    """Returns the file server of each node. Nodes next to one another, as those of a rack are, have different ones."""
    return np.arange(nodes) % servers


def lose(
    fleet: Fleet,
    placed: Array,
    lost: Array,
    policy: Policy,
    costs: Costs,
    setting: Setting,
    storage: Storage,
    rng: np.random.Generator,
) -> Recovery:
    """Returns what becomes of the sessions of the nodes that are lost."""
    nodes = len(storage.cells)
    load = load_of(placed, fleet.demand, nodes)
    moved = np.flatnonzero(np.isin(placed, lost))
    after = _placed_again(fleet, placed, lost, moved, policy, setting, storage.cells, load)
    opened = moved[fleet.active[moved]]
    kinds = fleet.kinds[opened]
    calls = rng.exponential(costs.step[kinds] / fleet.demand[opened])
    reading, computing = _work(kinds, costs, setting, rng)
    idle = np.maximum(LEAST_IDLE, setting.cores - load)[after[opened]]
    found = np.maximum(calls, setting.lease) + costs.call
    read = queues(storage.cells[placed[opened]], found, reading / storage.spare, reading / setting.network)
    done = queues(after[opened], read, computing / idle, computing)
    now = load_of(after, fleet.demand, nodes)[np.setdiff1d(np.arange(nodes), lost)]
    return Recovery(after, len(moved), len(opened), done - calls, float(now.max() / now.mean()))


def queues(places: Array, arrivals: Array, shared: Array, alone: Array) -> Array:
    """Returns when each is done that comes to one of several places.

    A place works on all in the order in which they arrive. Each takes `shared` seconds of what the place can do, and at
    least `alone` seconds, however little there is to do.
    """
    done = np.empty(len(places))
    order = np.lexsort((arrivals, places))
    for part in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        done[part] = np.maximum(queue(arrivals[part], shared[part]), arrivals[part] + alone[part])
    return done


def queue(arrivals: Array, seconds: Array) -> Array:
    """Returns when each is done, if all are done in their order, each in so many seconds and one at a time."""
    sums = np.cumsum(seconds)
    done: Array = sums + np.maximum.accumulate(arrivals - (sums - seconds)) if len(sums) else sums
    return done


def _work(kinds: Array, costs: Costs, setting: Setting, rng: np.random.Generator) -> tuple[Array, Array]:
    """Returns the bytes that sessions are read from, and the seconds in which they are opened and replayed.

    The journal since the last checkpoint has anything between nothing and what leads to the next, and what of its
    segment is before that anything up to a whole one.
    """
    journal = rng.random(len(kinds)) * newest(costs, setting)[kinds]
    read = journal + rng.random(len(kinds)) * before(costs, setting)[kinds]
    return costs.state[kinds] + read, costs.wake[kinds] + journal / costs.batch[kinds] * costs.replay[kinds]


def _placed_again(
    fleet: Fleet, placed: Array, lost: Array, moved: Array, policy: Policy, setting: Setting, cell: Array, load: Array
) -> Array:
    """Returns the places of all, when those that lost theirs are in the same cell again, or anywhere if it is gone."""
    alive = np.setdiff1d(np.arange(len(cell)), lost)
    after = placed.copy()
    for each in np.unique(cell[lost]):
        ids = moved[cell[placed[moved]] == each]
        left = alive[cell[alive] == each]
        after[ids] = policy(ids, fleet.demand[ids], left if len(left) else alive, load, setting.bound)
    return after
