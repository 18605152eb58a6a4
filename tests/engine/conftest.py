"""Runs a registered operator's samples through the builder, its gradient, and the gradient of its gradient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine import ops as _ops  # noqa: F401
from backwire_server.engine.builder import RANDOM_KEY, Builder
from backwire_server.engine.differentiate import differentiate
from backwire_server.engine.graph import TensorType
from backwire_server.engine.program import Program
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample
from backwire_server.engine.values import Value

Array = NDArray[np.float64]


@dataclass
class Bench:
    """A builder with one operator in it: `leaves` are its floating-point inputs, `outputs` what it computes."""

    builder: Builder
    leaves: dict[str, Array]
    outputs: tuple[Value, ...]

    def evaluate(self, values: Sequence[Value], leaves: Mapping[str, Array]) -> list[Array]:
        feeds = {**leaves, RANDOM_KEY: np.array([3, 4], np.uint64)}
        return Program(self.builder, [value.name for value in values], feeds.keys()).run(feeds)

    def leaf(self, name: str, array: Array) -> Value:
        self.leaves[name] = array
        return self.builder.leaf(name, TensorType(array.dtype, array.shape))


def make_bench(name: str, sample: Sample, dtype: str = "float64") -> Bench:
    bench = Bench(Builder(training=True), {}, ())
    inputs: list[Value | None] = []
    for index, array in enumerate(sample.inputs):
        if array is None:
            inputs.append(None)
        elif array.dtype.kind == "f" and index not in sample.static:
            inputs.append(bench.leaf(f"x{index}", np.asarray(array, dtype)))
        else:
            inputs.append(bench.builder.constant(np.asarray(array, dtype if array.dtype.kind == "f" else None)))
    bench.outputs = bench.builder.emit(name, inputs, sample.attributes, sample.n_outputs)
    return bench


def central_differences(
    function: Callable[[Mapping[str, Array]], float], leaves: Mapping[str, Array], names: Sequence[str]
) -> dict[str, Array]:
    """Returns the gradient of a scalar function by central differences."""
    found = {}
    for name in names:
        gradient = np.zeros_like(leaves[name])
        for place in np.ndindex(gradient.shape):
            step = 1e-5 * max(1.0, abs(float(leaves[name][place])))
            values = []
            for sign in (1, -1):
                moved = leaves[name].copy()
                moved[place] += sign * step
                values.append(function({**leaves, name: moved}))
            gradient[place] = (values[0] - values[1]) / (2 * step)
        found[name] = gradient
    return found


def gradient_error(bench: Bench, outputs: Sequence[Value], names: Sequence[str], tag: str) -> tuple[float, list[Value]]:
    """Differentiates a random weighting of the outputs; returns the worst relative error and the gradient values."""
    draw = np.random.default_rng(5)
    seeds: dict[str, Value] = {}
    weights: list[Array] = []
    for index, output in enumerate(outputs):
        weight = draw.normal(size=output.sizes)
        seed = bench.leaf(f"{tag}{index}", weight)
        seeds[output.name] = seeds[output.name] + seed if output.name in seeds else seed
        weights.append(weight)
    gradients = differentiate(bench.builder, seeds, names)
    flowing = {name: value for name, value in gradients.items() if value is not None}
    analytic = dict(zip(flowing, bench.evaluate(list(flowing.values()), bench.leaves), strict=True))

    def weighted(leaves: Mapping[str, Array]) -> float:
        values = bench.evaluate(outputs, leaves)
        return float(sum(np.sum(weight * value) for weight, value in zip(weights, values, strict=True)))

    worst = 0.0
    for name, expected in central_differences(weighted, bench.leaves, names).items():
        found = analytic.get(name, np.zeros_like(expected))
        assert found.shape == expected.shape
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)) / scale)
    return worst, list(flowing.values())


SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{i}") for name, op in OPS.items() for i, sample in enumerate(op.samples)
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"op_name", "sample"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("op_name", "sample"), SAMPLES)


@pytest.fixture
def bench_of() -> Callable[..., Bench]:
    return make_bench


@pytest.fixture
def error_of() -> Callable[..., tuple[float, list[Value]]]:
    return gradient_error
