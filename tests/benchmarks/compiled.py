"""Sessions that compute by JAX beside steps written in JAX by hand: what the session costs besides its computation."""

import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks import figures
from tests.benchmarks.conductor import Kind, Unavailable, Worker, interleave, workers
from tests.benchmarks.steps import check

OWN, PEER = Kind("engine:jax", "session with executor jax"), Kind("jax", "jax.jit by hand", is_peer=True)
CHECKED = Kind("jax:checked", "jax.jit by hand, batch sent, gradients checked", is_peer=True)
HALF = Kind("engine:jax/bfloat16", "session with products in bfloat16")
MODELS = ("S", "M", "L")
LEAST = 0.95
"""The time of a step by hand relative to one of a session."""


def measure(peer_python: str, *, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the milliseconds of a step by both on one thread, and the time by hand relative to that of a session."""
    rows: list[figures.Row] = []
    with workers([OWN, PEER, CHECKED, HALF], peer_python) as contenders:
        for model in MODELS[:2] if quick else MODELS:
            say(f"compiled steps of {model}")
            rows += _rows(model, contenders, quick=quick)
    platform = os.getenv("JAX_PLATFORMS", "cpu")
    where = "on one thread" if platform == "cpu" else f"on {platform or 'the accelerator that JAX finds'}"
    return {"title": f"steps of forward, backward and Adam, compiled whole by XLA, {where}", "rows": rows}


def _rows(model: str, contenders: Sequence[Worker], *, quick: bool) -> list[figures.Row]:
    try:
        first, *others = (worker.setup(model) for worker in contenders)
        for other in others[:-1]:
            check(first, other)
    except Unavailable as error:
        return [figures.unavailable(f"{model}: steps", error)]
    times, failures = interleave(contenders, rounds=7 if quick else 21, burst=0.05 if quick else 0.1)
    if failures:
        return [figures.unavailable(f"{model}: {name}", reason) for name, reason in failures.items()]
    rows = [
        figures.row(f"{model}: {kind.label}", 1000 * statistics.median(times[kind.name].wall), "ms")
        for kind in (OWN, PEER, CHECKED, HALF)
    ]
    own, peer, checked, half = (times[kind.name] for kind in (OWN, PEER, CHECKED, HALF))
    return [
        *rows,
        figures.row(f"{model}: by hand / session", peer.ratio(own), "x", least=LEAST),
        figures.row(f"{model}: the same, processor time", peer.ratio(own, "cpu"), "x"),
        figures.row(f"{model}: by hand, checked / session", checked.ratio(own), "x"),
        figures.row(f"{model}: the same, processor time, checked", checked.ratio(own, "cpu"), "x"),
        figures.row(f"{model}: float32 / bfloat16", own.ratio(half), "x"),
    ]
