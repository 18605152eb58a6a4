"""Gradients of every operator, by every input, at shapes, axes and settings that hypothesis draws.

Each is held against the central difference along a random direction of that input, in float64, and so is the gradient
of the gradient in half of the cases. The draws are the same in each run; with BACKWIRE_EXAMPLES=1000 there are so many
for each operator.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.engine import drawn_elementwise, drawn_indexing, drawn_reducing, drawn_sequences, drawn_windows
from tests.engine.drawing import Draw, Strategy

from backwire_server.engine.differentiate import differentiate, is_float
from backwire_server.engine.registry import OPS
from backwire_server.engine.values import Value

Array = NDArray[np.float64]
STEP = 1e-5
TOLERANCE = 1e-6
EXAMPLES = int(os.environ.get("BACKWIRE_EXAMPLES", "30"))

STRATEGIES: dict[str, Strategy] = {
    **drawn_elementwise.STRATEGIES,
    **drawn_indexing.STRATEGIES,
    **drawn_reducing.STRATEGIES,
    **drawn_sequences.STRATEGIES,
    **drawn_windows.STRATEGIES,
}


def error_along(bench: Any, outputs: Sequence[Value], tag: str, rng: np.random.Generator) -> tuple[float, list[Value]]:
    """Weights the outputs and differentiates; returns the worst relative error over the leaves, and the gradients."""
    names = tuple(bench.leaves)
    weights = [rng.normal(size=output.sizes) for output in outputs]
    seeds: dict[str, Value] = {}
    for index, (output, weight) in enumerate(zip(outputs, weights, strict=True)):
        seed = bench.leaf(f"{tag}{index}", weight)
        seeds[output.name] = seeds[output.name] + seed if output.name in seeds else seed
    gradients = {name: each for name, each in differentiate(bench.builder, seeds, names).items() if each is not None}
    found = dict(zip(gradients, bench.evaluate([*gradients.values()], bench.leaves), strict=True))

    def weighted(leaves: Mapping[str, Array]) -> float:
        results = bench.evaluate(outputs, leaves)
        return float(sum(np.sum(weight * result) for weight, result in zip(weights, results, strict=True)))

    worst = 0.0
    for name in names:
        leaf = bench.leaves[name]
        direction = rng.uniform(-1, 1, leaf.shape)
        ahead, behind = (
            weighted({**bench.leaves, name: np.asarray(leaf + sign * direction)}) for sign in (STEP, -STEP)
        )
        expected = (ahead - behind) / (2 * STEP)
        gradient = found.get(name, np.zeros_like(leaf))
        assert gradient.shape == leaf.shape
        scale = max(1.0, float(np.sum(np.abs(gradient * direction))))
        worst = max(worst, abs(expected - float(np.sum(gradient * direction))) / scale)
    return worst, [*gradients.values()]


@pytest.mark.parametrize("op_name", sorted(STRATEGIES.keys() & OPS.keys()))
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)
@given(data=st.data())
def test_gradient_agrees_with_central_differences(bench_of: Callable[..., Any], op_name: str, data: Any) -> None:
    d = Draw(data)
    sample = STRATEGIES[op_name](d)
    shapes = [None if each is None else (each.dtype.name, each.shape) for each in sample.inputs]
    note(f"{op_name} {shapes} {dict(sample.attributes)} outputs={sample.n_outputs}")
    bench = bench_of(op_name, sample)
    outputs = [value for value in bench.outputs if is_float(value.dtype)]
    rng = np.random.default_rng(5)
    error, gradients = error_along(bench, outputs, "v", rng)
    assert error < TOLERANCE
    if d.flag() and gradients:
        error, _ = error_along(bench, gradients, "u", rng)
        assert error < TOLERANCE, "the gradient of the gradient"


def test_every_operator_with_a_gradient_is_drawn(bench_of: Callable[..., Any]) -> None:
    for name, op in OPS.items():
        if not op.internal and name not in STRATEGIES:
            for sample in op.samples:
                bench = bench_of(name, sample)
                seeds = {value.name: value for value in bench.outputs if is_float(value.dtype)}
                gradients = differentiate(bench.builder, seeds, tuple(bench.leaves)) if seeds and bench.leaves else {}
                assert not any(gradients.values()), f"{name} has a gradient: draw it in one of tests/engine/drawn_*.py"
