"""Policies by which sessions come to nodes: at first, and again when theirs is lost.

All know the id of a session and the load of the nodes, and none what the session will do: it is placed before it
trains. A sleeping session counts as SLEEPER cores, so that nodes get equally many of them, too.
"""

from collections.abc import Callable

import numpy as np
from tests.capacity.costs import Array

SLEEPER = 0.001
VIRTUAL = 100
"""The places of a node on the ring."""

Policy = Callable[[Array, Array, Array, Array, float], Array]
"""Takes the ids of sessions, their cores, the nodes that live, the load of all nodes before, and the bound; returns the
node of each session."""


def weights(demand: Array) -> Array:
    """Returns how much sessions count that keep so many cores busy."""
    counted: Array = np.maximum(demand, SLEEPER)
    return counted


def scattered(ids: Array, salt: int) -> Array:
    """Returns a hash of 64 bits for each id: the finalizer of SplitMix64, for which all inputs have other outputs."""
    mixed: Array = ids.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def random(ids: Array, demand: Array, alive: Array, load: Array, bound: float) -> Array:
    """Any node, as a load balancer does that knows nothing."""
    del demand, load, bound
    chosen: Array = alive[scattered(ids, len(alive)) % np.uint64(len(alive))]
    return chosen


def ring(ids: Array, demand: Array, alive: Array, load: Array, bound: float) -> Array:
    """The node next on a ring on which each has VIRTUAL places: who loses no node keeps his sessions."""
    del demand, load, bound
    return _next(scattered(ids, 1), alive)


def two_choices(ids: Array, demand: Array, alive: Array, load: Array, bound: float) -> Array:
    """The less loaded of two nodes. Loads are told anew when there is one more session for each node."""
    del bound
    load, weight, count = load.copy(), weights(demand), np.uint64(len(alive))
    first, second = (alive[scattered(ids, salt) % count] for salt in (2, 3))
    placed = np.empty(len(ids), np.int64)
    for begin in range(0, len(ids), len(alive)):
        part = slice(begin, begin + len(alive))
        chosen = np.where(load[first[part]] <= load[second[part]], first[part], second[part])
        placed[part] = chosen
        np.add.at(load, chosen, weight[part])
    return placed


def bounded_ring(ids: Array, demand: Array, alive: Array, load: Array, bound: float) -> Array:
    """The next node on the ring whose load is below `bound` times the mean of all, once all are placed.

    So no node ends above that by more than its last session.
    """
    load, weight, hashes = load.copy(), weights(demand), scattered(ids, 1)
    most = bound * (load[alive].sum() + weight.sum()) / len(alive)
    placed, left = np.empty(len(ids), np.int64), np.arange(len(ids))
    while len(left):
        wanted = _next(hashes[left], alive[load[alive] < most])
        order = np.argsort(wanted, kind="stable")
        left, wanted = left[order], wanted[order]
        taken = load[wanted] + _before(wanted, weight[left]) < most
        placed[left[taken]] = wanted[taken]
        np.add.at(load, wanted[taken], weight[left[taken]])
        left = np.sort(left[~taken])
    return placed


def _next(hashes: Array, nodes: Array) -> Array:
    """Returns the node whose place is next on the ring for each hash."""
    places = scattered(np.repeat(nodes, VIRTUAL) * VIRTUAL + np.tile(np.arange(VIRTUAL), len(nodes)), 4)
    order = np.argsort(places, kind="stable")
    following = np.searchsorted(places[order], hashes) % len(order)
    found: Array = np.repeat(nodes, VIRTUAL)[order[following]]
    return found


def _before(groups: Array, weight: Array) -> Array:
    """Returns the sum of the weights before each in its group; groups lie together."""
    sums = np.cumsum(weight) - weight
    first = np.r_[True, groups[1:] != groups[:-1]]
    within: Array = sums - sums[first][np.cumsum(first) - 1]
    return within


POLICIES: dict[str, Policy] = {
    "random": random,
    "hash ring": ring,
    "two choices": two_choices,
    "bounded ring": bounded_ring,
}
