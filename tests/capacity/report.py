"""What was found as tables in Markdown and as JSON; and the page of the documentation that has these tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tests.capacity.costs import Costs, Figure
from tests.capacity.failure import Recovery
from tests.capacity.fleet import Setting
from tests.capacity.remedies import tried
from tests.capacity.scale import CHOSEN, SIZES, Outcome, simulate

GB = 1e9
BLOCK = re.compile(r"(?P<begin><!-- simulated: (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Found:
    """All that a run found, and what it started from."""

    figures: Mapping[str, Figure]
    setting: Setting
    seed: int
    sizes: Sequence[Outcome]
    remedies: Mapping[str, Outcome]


def run(figures: Mapping[str, Figure], setting: Setting, seed: int) -> Found:
    """Plays all sizes and remedies through."""
    costs = Costs(figures)
    sizes = [simulate(nodes, costs, setting, seed) for nodes in SIZES]
    return Found(figures, setting, seed, sizes, tried(costs, setting, seed))


def tables(found: Found) -> dict[str, str]:
    """Returns each table by its name."""
    return {
        "costs": _costs(found.figures),
        "setting": _setting(found.setting),
        "sizes": _sizes(found.sizes),
        "uses": _uses(found.sizes),
        "policies": _policies(found.sizes),
        "losses": _losses(found.sizes),
        "remedies": _remedies(found.remedies),
    }


def page(text: str, made: Mapping[str, str]) -> str:
    """Returns a page with the tables in their places; raises KeyError for a place that no table is for."""
    return BLOCK.sub(lambda place: f"{place['begin']}\n{made[place['name']]}\n\n{place['end']}", text)


def as_json(found: Found) -> dict[str, Any]:
    """Returns everything but the places of sessions."""
    return {
        "seed": found.seed,
        "figures": {name: asdict(figure) for name, figure in found.figures.items()},
        "setting": asdict(found.setting),
        "sizes": [_outcome(each) for each in found.sizes],
        "remedies": {name: _outcome(each) for name, each in found.remedies.items()},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    losses = {
        loss: {policy: _recovery(each) for policy, each in by_policy.items()}
        for loss, by_policy in outcome.losses.items()
    }
    plain = {
        name: getattr(outcome, name) for name in outcome.__slots__ if name not in ("losses", "balances", "traffic")
    }
    balances = {policy: asdict(each) for policy, each in outcome.balances.items()}
    return {**plain, "balances": balances, "traffic": asdict(outcome.traffic), "losses": losses}


def _recovery(each: Recovery) -> dict[str, Any]:
    waits = dict(zip(("p50", "p99", "longest"), _waits(each), strict=True))
    return {"touched": each.touched, "opened": each.opened, "imbalance": each.imbalance, "waits": waits}


def _costs(figures: Mapping[str, Figure]) -> str:
    rows = [(each.of, f"{each.value:g} {each.unit}", f"`{each.source}`") for each in figures.values()]
    return _table(("what was measured", "figure", "by"), rows)


def _setting(setting: Setting) -> str:
    shares = ", ".join(f"{share:g}" for share in setting.kinds)
    rows = [
        ("a node: cores, memory, network", f"{setting.cores}, {_gb(setting.memory)} GB, {_gb(setting.network)} GB/s"),
        ("a file server: bandwidth", f"{_gb(setting.server_bandwidth)} GB/s"),
        ("a file server: operations on names and files", f"{_number(setting.server_operations)} a second"),
        ("how much of a file server may be in use", f"{setting.server_share:g}"),
        ("sessions for each node", _number(setting.sessions_per_node)),
        ("shares of S, M, L", shares),
        ("share of sessions that train at a time", f"{setting.active:g}"),
        ("cores that one of these keeps busy, by Pareto's law", f"{setting.least:g} to 1"),
        ("share of them that trained when sessions were placed", f"{setting.persistent:g}"),
        ("another session is called once in", f"{_number(setting.asleep_for)} s"),
        ("`--checkpoint-bytes`, `--lease`", f"{setting.checkpoint_bytes / 2**20:g} MiB, {setting.lease:g} s"),
        ("for how many others a node is asked at a time", f"{setting.asked}"),
        ("a server should start within", f"{setting.start:g} s"),
        ("moves of sessions", f"{setting.budget:g} a second"),
    ]
    return _table(("what is assumed", ""), rows)


def _sizes(outcomes: Sequence[Outcome]) -> str:
    rows = {
        "sessions": [_number(each.sessions) for each in outcomes],
        "of these active": [_number(each.active) for each in outcomes],
        "cores that are busy": [_number(each.cores) for each in outcomes],
        "memory of the fullest node, GB": [_gb(each.memory) for each in outcomes],
        "written, GB/s": [_gb(each.traffic.bandwidth) for each in outcomes],
        "fencing: operations/s": [_number(each.traffic.operations["fence"]) for each in outcomes],
        "signs of life, written: operations/s": [_number(each.traffic.operations["beat"]) for each in outcomes],
        "signs of life, read: operations/s": [_number(each.traffic.operations["watch"]) for each in outcomes],
        "passing checkpoints: operations/s": [_number(each.traffic.operations["pass"]) for each in outcomes],
        "waking and hibernating: operations/s": [_number(each.traffic.operations["sleep"]) for each in outcomes],
        "files": [_number(each.traffic.files) for each in outcomes],
        "kept on disk, GB": [_number(each.traffic.kept / GB) for each in outcomes],
        "the directory `sessions`, MB": [f"{each.traffic.names / 1e6:.3g}" for each in outcomes],
        "file servers, if each has a share of the nodes": [_number(each.servers) for each in outcomes],
    }
    return _by_size(outcomes, rows)


def _uses(outcomes: Sequence[Outcome]) -> str:
    names = sorted(outcomes[-1].uses)
    rows = {name: [_percent(each.uses[name]) for each in outcomes] for name in names}
    return _by_size(outcomes, {**rows, "**most used**": [f"**{next(iter(each.uses))}**" for each in outcomes]})


def _policies(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (
            _number(outcome.nodes),
            name,
            *(f"{value:.2f}" for value in (each.before, each.now, each.after)),
            _number(each.moves),
            f"{each.seconds:.1f} s",
        )
        for outcome in outcomes[1:]
        for name, each in outcome.balances.items()
    ]
    return _table(("nodes", "policy", "when placed", "later", "after moves", "moves", "they take"), rows)


def _losses(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        for loss, by_policy in outcome.losses.items():
            each = by_policy[CHOSEN]
            counts = [_number(count) for count in (outcome.nodes, each.touched, each.opened)]
            waits = [f"{wait:.1f}" for wait in _waits(each)]
            rows.append((counts[0], loss, *counts[1:], *waits, f"{each.imbalance:.2f}"))
    head = ("nodes", "lost", "sessions", "of these opened", "p50, s", "p99, s", "longest, s", "busiest / mean")
    return _table(head, rows)


def _remedies(found: Mapping[str, Outcome]) -> str:
    rows = []
    for name, each in found.items():
        waits = _waits(each.losses["a node"][CHOSEN])
        rows.append((name, *(f"{wait:.1f}" for wait in waits), _gb(each.traffic.bandwidth), _number(each.servers)))
    return _table(("with", "p50, s", "p99, s", "longest, s", "written, GB/s", "file servers"), rows)


def _by_size(outcomes: Sequence[Outcome], rows: Mapping[str, Sequence[str]]) -> str:
    return _table(("nodes", *(_number(each.nodes) for each in outcomes)), [(name, *row) for name, row in rows.items()])


def _waits(each: Recovery) -> list[float]:
    return [float(wait) for wait in np.percentile(each.waits, (50, 99, 100))]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _number(value: float) -> str:
    """Returns a count; large ones to three digits, since the rest is chance."""
    return f"{float(f'{value:.3g}') if value >= 1_000 else round(value):,.0f}"


def _gb(value: float) -> str:
    return f"{value / GB:.3g}"


def _percent(value: float) -> str:
    return f"{float(f'{100 * value:.2g}'):,g} %"
