"""One size of a deployment, played through: placement, what it asks of the storage, losses, and moves."""

import math
from dataclasses import dataclass

import numpy as np
from tests.capacity.checkpoints import busy
from tests.capacity.costs import Array, Costs, MiB
from tests.capacity.failure import Recovery, Storage, cells, load_of, lose
from tests.capacity.fleet import Fleet, Setting, draw
from tests.capacity.placement import POLICIES
from tests.capacity.rebalance import rebalance
from tests.capacity.storage import Traffic, traffic

SIZES = (1, 10, 100, 1_000)
CHOSEN = "two choices"
"""The policy of all figures but those that compare policies."""

PROCESS_BYTES = 100 * MiB
"""Of a worker, of which there is one for each core, without sessions: docs/operations.md."""

MOST_MOVES = 30_000


@dataclass(frozen=True, slots=True)
class Balance:
    """How even a policy makes the load: that of the busiest node relative to the mean.

    `before` is of when sessions were placed, `now` of when others are active, `after` of after `moves`, which take so
    many `seconds`. A session that moves stands still for `pause` seconds, on average.
    """

    before: float
    now: float
    moves: int
    seconds: float
    pause: float
    after: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of a size. `servers` are the file servers that it takes, each with its share of the nodes.

    `memory` is that of the fullest node, in bytes. `uses` has how much is in use of each resource, relative to all of
    it, if all nodes share one directory on one file server; the most used is the first.
    """

    nodes: int
    sessions: int
    active: int
    cores: float
    balances: dict[str, Balance]
    memory: float
    traffic: Traffic
    servers: int
    losses: dict[str, dict[str, Recovery]]
    uses: dict[str, float]


def simulate(nodes: int, costs: Costs, setting: Setting, seed: int) -> Outcome:
    """Returns what becomes of so many nodes; the same for the same arguments."""
    fleet = draw(setting, nodes, np.random.default_rng((seed, nodes)))
    alive, ids = np.arange(nodes), np.arange(len(fleet.kinds))
    places = {
        name: policy(ids, fleet.before, alive, np.zeros(nodes), setting.bound) for name, policy in POLICIES.items()
    }
    asked = traffic(fleet, costs, setting, nodes)
    servers = needed(asked, setting, nodes)
    storage = Storage(cells(nodes, servers), setting.server_bandwidth - asked.bandwidth / servers)
    chosen = places[CHOSEN]
    memory = _memory(fleet, chosen, costs, setting, nodes)
    return Outcome(
        nodes=nodes,
        sessions=len(ids),
        active=int(fleet.active.sum()),
        cores=float(busy(fleet, costs, setting).sum()),
        balances={name: _balance(fleet, placed, costs, setting, nodes) for name, placed in places.items()},
        memory=memory,
        traffic=asked,
        servers=servers,
        losses=_losses(fleet, places, costs, setting, storage, seed),
        uses=_uses(fleet, chosen, costs, setting, nodes, asked, memory),
    )


def needed(asked: Traffic, setting: Setting, nodes: int) -> int:
    """Returns how many file servers suffice, if the nodes of each know only one another."""
    others = sum(amount for name, amount in asked.operations.items() if name != "watch")
    bandwidth, operations = (
        setting.server_share * each for each in (setting.server_bandwidth, setting.server_operations)
    )
    servers = max(1, math.ceil(asked.bandwidth / bandwidth))
    while (others + asked.operations["watch"] / servers) / servers > operations and servers < nodes:
        servers += 1
    return servers


def lost_nodes(setting: Setting, nodes: int, rng: np.random.Generator) -> dict[str, Array]:
    """Returns which nodes fail in each of the losses that so many nodes may have and outlive."""
    first = int(rng.integers(nodes))
    found = {"a node": np.array([first])} if nodes > 1 else {}
    if nodes > 2 * setting.rack:
        found["a rack"] = first // setting.rack * setting.rack + np.arange(setting.rack)
    if nodes >= 200:
        found["1%"] = rng.choice(nodes, nodes // 100, replace=False)
    return found


def _balance(fleet: Fleet, placed: Array, costs: Costs, setting: Setting, nodes: int) -> Balance:
    moves = rebalance(placed, fleet.demand, np.arange(nodes), MOST_MOVES)
    kinds = fleet.kinds[moves.sessions]
    pause = costs.write[kinds] + 2 * costs.state[kinds] / setting.network + costs.wake[kinds]
    return Balance(
        before=_evenness(placed, fleet.before, nodes),
        now=_evenness(placed, fleet.demand, nodes),
        moves=len(kinds),
        seconds=len(kinds) / setting.budget,
        pause=float(pause.mean()) if len(kinds) else 0.0,
        after=moves.imbalance,
    )


def _evenness(placed: Array, demand: Array, nodes: int) -> float:
    load = load_of(placed, demand, nodes)
    return float(load.max() / load.mean())


def _losses(
    fleet: Fleet, places: dict[str, Array], costs: Costs, setting: Setting, storage: Storage, seed: int
) -> dict[str, dict[str, Recovery]]:
    """Returns for each loss what it leads to with each policy."""
    nodes = len(storage.cells)
    lost = lost_nodes(setting, nodes, np.random.default_rng((seed, nodes, 1)))
    return {
        loss: {
            name: lose(fleet, placed, gone, POLICIES[name], costs, setting, storage, np.random.default_rng((seed, 2)))
            for name, placed in places.items()
        }
        for loss, gone in lost.items()
    }


def _memory(fleet: Fleet, placed: Array, costs: Costs, setting: Setting, nodes: int) -> float:
    held = np.where(fleet.active, costs.awake[fleet.kinds], costs.asleep)
    return float(np.bincount(placed, weights=held, minlength=nodes).max()) + PROCESS_BYTES * (1 + setting.cores)


def _uses(
    fleet: Fleet, placed: Array, costs: Costs, setting: Setting, nodes: int, asked: Traffic, memory: float
) -> dict[str, float]:
    written = fleet.demand / costs.step[fleet.kinds] * costs.batch[fleet.kinds]
    uses = {
        "processors": load_of(placed, busy(fleet, costs, setting), nodes).max() / setting.cores,
        "memory": memory / setting.memory,
        "network": load_of(placed, written, nodes).max() * asked.bandwidth / asked.journal / setting.network,
        "storage bytes": asked.bandwidth / setting.server_bandwidth,
        "storage operations": sum(asked.operations.values()) / setting.server_operations,
        "start": costs.entry * len(fleet.kinds) / setting.start,
    }
    return {name: float(uses[name]) for name in sorted(uses, key=lambda each: -uses[each])}
