"""The nodes, and the sessions on them: what is assumed, not measured. Every deployment has other numbers."""

from dataclasses import dataclass

import numpy as np
from tests.capacity.costs import KINDS, Array


@dataclass(frozen=True, slots=True)
class Setting:
    """What a deployment has, and what its sessions do. Bandwidths are in bytes a second, times in seconds.

    Attributes:
        cores: Of each node, each as fast as that of the machine that was measured.
        memory: Bytes of each node.
        network: Of each node, in each direction: batches come in, and what is written goes out.
        server_bandwidth: Of a file server that nodes share.
        server_operations: Operations on names and files that it does in a second.
        server_share: How much of a file server may be in use in planning; the rest is for recovery.
        sessions_per_node: How many sessions there are for each node, awake or asleep.
        kinds: The shares of sessions that train S, M and L.
        active: The share of sessions that train at a time.
        least: The share of a core that the quietest active session keeps busy; the busiest fills one.
        tail: The exponent of their distribution between these, a bounded Pareto distribution.
        persistent: The share of active sessions that were active when sessions were placed; the others are new.
        asleep_for: How long a session sleeps on average, if it is not active, before a call wakes it.
        checkpoint_bytes: The journal that leads to a checkpoint, `--checkpoint-bytes`.
        passing: Whether servers make passing checkpoints, as those do that share a directory.
        lease: After which time without a sign of life a node counts as dead.
        beats: The signs of life of a node in that time; as often at most it reads that of another it is asked for.
        asked: For how many others a node is asked at a time, by first calls of clients and by those that do not follow.
        start: The seconds in which a server should start.
        rack: How many nodes fail together.
        bound: The most load of a node relative to the mean, for policies that keep one.
        budget: The moves of sessions that are made in a second, in all.
    """

    cores: int = 8
    memory: float = 64e9
    network: float = 1.25e9
    server_bandwidth: float = 3e9
    server_operations: float = 50_000
    server_share: float = 0.5
    sessions_per_node: int = 1_000
    kinds: tuple[float, float, float] = (0.8, 0.18, 0.02)
    active: float = 0.1
    least: float = 0.005
    tail: float = 1.0001
    persistent: float = 0.5
    asleep_for: float = 3_600
    checkpoint_bytes: float = 128 << 20
    passing: bool = True
    lease: float = 1.0
    beats: int = 5
    asked: int = 4
    start: float = 60.0
    rack: int = 20
    bound: float = 1.25
    budget: float = 20.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """All sessions, by number: the places of their models in KINDS, and the cores that they keep busy.

    `before` is of when they were placed, `demand` of now; it is zero for those that are asleep.
    """

    kinds: Array
    before: Array
    demand: Array

    @property
    def active(self) -> Array:
        """Which sessions train now."""
        return self.demand > 0


def draw(setting: Setting, nodes: int, rng: np.random.Generator) -> Fleet:
    """Returns the sessions of so many nodes."""
    count = nodes * setting.sessions_per_node
    kinds = rng.choice(len(KINDS), count, p=setting.kinds).astype(np.int8)
    was = rng.random(count) < setting.active
    stays = was & (rng.random(count) < setting.persistent)
    comes = ~was & (rng.random(count) < setting.active * (1 - setting.persistent) / (1 - setting.active))
    amounts = _pareto(setting, rng.random(count))
    return Fleet(kinds, np.where(was, amounts, 0.0), np.where(stays | comes, amounts, 0.0))


def _pareto(setting: Setting, uniform: Array) -> Array:
    """Returns values between `least` and 1, distributed by Pareto's law between these."""
    below: Array = (1 - uniform * (1 - setting.least**setting.tail)) ** (-1 / setting.tail)
    return np.minimum(1.0, setting.least * below)
