"""Training steps of all models, by Backwire and by its peers, relative to PyTorch in eager mode on one thread."""

import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.conductor import Kind, Timing, Unavailable, Worker, interleave, workers

BASE = Kind("torch", "PyTorch eager, 1 thread", is_peer=True)

GROUPS = {
    "engine": [Kind("engine", "engine in process")],
    "remote": [
        Kind("remote:pipeline", "remote, pipelined"),
        Kind("remote:train-step", "remote TrainStep"),
        Kind("remote:three-calls", "remote, three calls"),
    ],
    "peers": [
        Kind("torch:all-threads", "PyTorch eager, all threads", is_peer=True, all_threads=True),
        Kind("torch:fused", "PyTorch eager, fused Adam", is_peer=True),
        Kind("torch:compiled", "torch.compile", is_peer=True),
        Kind("jax", "jax.jit", is_peer=True),
        Kind("torch_rpc", "torch.distributed.rpc", is_peer=True),
    ],
}

SLOW_TO_START = ("torch:compiled", "jax")
"""Contenders that compile for longer than a quick run may take."""

_MODELS = ("S", "M", "L", "LeNet", "ResNet-8", "transformer", "LSTM")
TARGETS = {
    "engine": dict(zip(_MODELS, (0.45, 0.48, 0.45, 0.65, 0.90, 0.90, 0.90), strict=True)),
    "remote:pipeline": dict(zip(_MODELS, (0.80, 0.55, 0.47, 0.78, 0.95, 0.95, 0.95), strict=True)),
    "remote:train-step": dict(zip(_MODELS, (1.50, 0.65, 0.50, 0.90, 1.00, 1.00, 1.00), strict=True)),
}
"""The most time that a step may take, relative to BASE."""

AGREEMENT = 5e-3
"""The largest relative difference of losses and gradients. That of float32 is 1e-6, but where a Relu's input is so near
to zero that rounding decides its sign, a gradient differs by about one element in a hundred thousand."""

PROFILED_STEPS, PROFILED_MILLISECONDS = 3, 200
"""A contender that misses its target is profiled for so many steps, or for so long if that is more."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: models, contenders besides BASE, the interpreter of the peers, rounds, and seconds in each."""

    models: Sequence[str]
    kinds: Sequence[Kind]
    peer_python: str
    rounds: int
    burst: float


def measure(plan: Plan, say: Say) -> dict[str, dict[str, Any]]:
    """Returns for each model and contender its figures, or why there are none."""
    found: dict[str, dict[str, Any]] = {}
    with workers([BASE, *plan.kinds], plan.peer_python) as contenders:
        for model in plan.models:
            say(f"steps of {model}")
            found[model] = _measure_model(model, contenders, plan)
    return found


def _measure_model(model: str, contenders: Sequence[Worker], plan: Plan) -> dict[str, Any]:
    ready, failures = _set_up(model, contenders)
    times, late = interleave(ready, rounds=plan.rounds, burst=plan.burst)
    failures |= late
    found = {worker.kind.name: _figures(model, worker.kind.name, times, failures) for worker in contenders}
    for worker in ready:
        figures = found[worker.kind.name]
        if figures.get("ratio", 0) > figures.get("target", math.inf):
            steps = max(PROFILED_STEPS, round(PROFILED_MILLISECONDS / figures["milliseconds"]))
            with contextlib.suppress(Unavailable):
                figures["profile"] = worker.profile(steps)
    return found


def _set_up(model: str, contenders: Sequence[Worker]) -> tuple[list[Worker], dict[str, str]]:
    """Returns the contenders that compute what the first of them does, and why others do not take part."""
    ready: list[Worker] = []
    failures: dict[str, str] = {}
    expected: dict[str, Any] | None = None
    for worker in contenders:
        try:
            answer = worker.setup(model)
            if worker.kind == BASE:
                expected = answer
            elif expected is not None:
                check(answer, expected)
            ready.append(worker)
        except Unavailable as error:
            failures[worker.kind.name] = str(error)
    return ready, failures


def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises Unavailable unless two implementations have the same loss and gradients."""
    if found["gradients"].keys() != expected["gradients"].keys():
        raise Unavailable(f"has other parameters: {sorted(found['gradients'].keys() ^ expected['gradients'].keys())}")
    worst = abs(found["loss"] / expected["loss"] - 1)
    largest = max(norm for norm, _ in expected["gradients"].values())
    for name, pair in expected["gradients"].items():
        scale = max(pair[0], 1e-3 * largest)
        worst = max(worst, *(abs(a - b) / scale for a, b in zip(found["gradients"][name], pair, strict=True)))
    if not worst <= AGREEMENT:
        raise Unavailable(f"differs from PyTorch by {worst:.1e}, so it computes something else")


def _quartiles(seconds: list[float]) -> list[float]:
    first, _, third = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else 3 * seconds
    return [first, third]


def _figures(model: str, name: str, times: dict[str, Timing], failures: dict[str, str]) -> dict[str, Any]:
    if name not in times:
        return {"unavailable": failures[name]}
    timing, base = times[name], times.get(BASE.name)
    figures: dict[str, Any] = {
        "milliseconds": 1000 * statistics.median(timing.wall),
        "milliseconds_quartiles": [1000 * each for each in _quartiles(timing.wall)],
        "cpu_milliseconds": 1000 * statistics.median(timing.cpu),
    }
    if base is not None:
        figures |= {"ratio": timing.ratio(base), "cpu_ratio": timing.ratio(base, "cpu")}
    target = TARGETS.get(name, {}).get(model)
    return figures if target is None else {**figures, "target": target}
