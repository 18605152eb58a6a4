"""Measures training on Backwire beside its peers: `make bench`, `make bench-quick`.

Figures are medians over interleaved rounds, and ratios of times measured in one run. Everything is float32 with Adam,
each process computes on one thread unless its name says otherwise. Best on an otherwise idle machine. With
BENCH_VERBOSE=1 in the environment, the processes that are measured say on standard error what they have to say. JAX
computes on processors, also where there is a GPU, unless JAX_PLATFORMS says otherwise.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    compiled,
    data_parallel,
    durability,
    figures,
    floor,
    forwarding,
    groups,
    hibernation,
    machine,
    memory,
    overload,
    payloads,
    plot,
    products,
    report,
    scaling,
    snapshots,
    steps,
    values,
)

import backwire as bw

STEPS, PRODUCTS, COMPILED = tuple(steps.GROUPS), "products", "jax"
Section = Callable[..., dict[str, Any]]
SECTIONS: dict[str, Section] = {
    "floor": floor.measure,
    "payloads": payloads.measure,
    "scaling": scaling.measure,
    "data-parallel": data_parallel.measure,
    "memory": memory.measure,
    "durability": durability.measure,
    "snapshots": snapshots.measure,
    "hibernation": hibernation.measure,
    "overload": overload.measure,
    "forwarding": forwarding.measure,
    "groups": groups.measure,
}
NAMES = (*STEPS, PRODUCTS, COMPILED, *SECTIONS)
QUICK_NAMES = (*STEPS, "floor", "payloads", "durability")
QUICK_MODELS = ("S", "M", "LeNet", "transformer")


def main() -> int:
    """Measures what was asked for, prints tables, and writes JSON and a plot."""
    options = _options()
    bw.tune_allocator()  # as the README advises clients that send large tensors; the sections are clients
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its notes on connections that servers close are no news
    settings = {"rounds": options.rounds, "burst": options.burst, "quick": options.quick}
    results: dict[str, Any] = {"machine": machine.facts(options.peers), "settings": settings}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for text in _measure(options, results):
        options.output.write_text(json.dumps(results, indent=2) + "\n")
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write(f"{report.machine_lines(results['machine'])}written to {options.output}\n")
    if "steps" in results:
        sys.stdout.write(plot.draw(results["steps"], options.output.with_suffix(".png")))
    if sections := [results[name] for name in SECTIONS if name in results]:
        path = options.output.with_name(f"{options.output.stem}-sections.png")
        sys.stdout.write(plot.draw_sections(sections, path))
    return 0


def _measure(options: argparse.Namespace, results: dict[str, Any]) -> Iterator[str]:
    """Adds figures to the results, a section at a time, and yields each section as a text."""
    kinds = [kind for name, group in steps.GROUPS.items() if name in options.only for kind in group]
    if options.quick:
        kinds = [kind for kind in kinds if kind.name not in steps.SLOW_TO_START]
    if kinds:
        plan = steps.Plan(options.models, kinds, options.peers, options.rounds, options.burst)
        results["steps"] = steps.measure(plan, _say)
        yield report.steps_table(results["steps"]) + report.profile_lines(results["steps"])
    of_peers = {PRODUCTS: products.measure, COMPILED: compiled.measure}
    sections: dict[str, Section] = {name: partial(each, options.peers) for name, each in of_peers.items()} | SECTIONS
    for name, measure in sections.items():
        if name in options.only:
            results[name] = _measured(name, measure, quick=options.quick)
            yield report.section(results[name])


def _measured(name: str, measure: Section, *, quick: bool) -> dict[str, Any]:
    """Returns the figures of a section; one that fails is told of, and does not lose the others."""
    try:
        return measure(quick=quick, say=_say)
    except Exception as error:
        traceback.print_exc()
        return {"title": name, "rows": [figures.unavailable("all", error)]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        type=_listed(NAMES),
        metavar="NAMES",
        help=f"what to measure: {', '.join(NAMES)} (default: all; {', '.join(QUICK_NAMES)} when quick)",
    )
    parser.add_argument(
        "--models",
        type=_listed(values.MODELS),
        metavar="NAMES",
        help=f"the models: {', '.join(values.MODELS)} (default: all; {', '.join(QUICK_MODELS)} when quick)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, models and sizes: under two minutes")
    parser.add_argument("--rounds", type=int, help="rounds of training steps (default: 21; 7 when quick)")
    parser.add_argument("--burst", type=float, help="seconds of steps in a round (default: 0.1; 0.05 when quick)")
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="the interpreter that has the peers (default: this)"
    )
    parser.add_argument("--output", type=Path, default=Path("out/bench.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    options.only = options.only or (QUICK_NAMES if options.quick else NAMES)
    options.models = options.models or (QUICK_MODELS if options.quick else values.MODELS)
    options.rounds = options.rounds or (7 if options.quick else 21)
    options.burst = options.burst or (0.05 if options.quick else 0.1)
    return options


def _listed(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def _say(text: str) -> None:
    sys.stderr.write(f"measuring {text}\n")


if __name__ == "__main__":
    sys.exit(main())
