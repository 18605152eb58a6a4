"""What holds for every operator: its result, gradient and gradient of the gradient are those of the numpy executor.

There they are held against central differences.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

from tests.engine.conftest import Bench, make_bench
from tests.xla.compiling import compiled

from backwire_server.engine.builder import RANDOM_KEY
from backwire_server.engine.differentiate import differentiate, is_float
from backwire_server.engine.program import Program
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample
from backwire_server.engine.values import Value
from backwire_server.xla.registry import numerics
from backwire_server.xla.tracing import arguments, trace

TOLERANCE = 1e-9


@pytest.mark.parametrize("name", OPS)
def test_results_and_gradients_are_those_of_the_numpy_executor(name: str) -> None:
    cases = [differentiated(name, sample) for sample in OPS[name].samples]
    with numerics():
        given = [[values[each] for each in arguments(program)] for program, values in cases]
        found = compiled(lambda given: [traced(case[0], own) for case, own in zip(cases, given, strict=True)])(given)
    for (program, values), ours in zip(cases, found, strict=True):
        for result, expected in zip(ours, program.run(values), strict=True):
            agree(np.asarray(result), expected)


def differentiated(name: str, sample: Sample) -> tuple[Program, dict[str, Any]]:
    """Returns a program of an operator's outputs, their gradients and the gradients of those, and what it is given."""
    bench = make_bench(name, sample)
    first = gradients(bench, bench.outputs, "v")
    second = gradients(bench, first, "u")
    targets = [each.name for each in (*bench.outputs, *first, *second)]
    feeds = {**bench.leaves, RANDOM_KEY: np.array([3, 4], np.uint64)}
    program = Program(bench.builder, targets, feeds.keys())
    return program, {**program.known, **feeds}


def gradients(bench: Bench, outputs: Sequence[Value], tag: str) -> list[Value]:
    """Returns the gradients of weighted outputs by all leaves, where they flow."""
    draws, names = np.random.default_rng(5), tuple(bench.leaves)
    seeds: dict[str, Value] = {}
    for index, output in enumerate(outputs):
        if is_float(output.dtype):
            seed = bench.leaf(f"{tag}{index}", draws.normal(size=output.sizes))
            seeds[output.name] = seeds[output.name] + seed if output.name in seeds else seed
    return [each for each in differentiate(bench.builder, seeds, names).values() if each is not None]


def traced(program: Program, given: Sequence[Any]) -> list[Any]:
    values = trace(program, dict(zip(arguments(program), given, strict=True))).values
    return [values[name] for name in program.targets]


def agree(ours: Any, expected: Any) -> None:
    assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)
    if ours.dtype.kind in "biu":
        np.testing.assert_array_equal(ours, expected)
    elif ours.dtype == np.float64:
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
        np.testing.assert_allclose(ours, expected, TOLERANCE, TOLERANCE * largest)
    else:
        np.testing.assert_allclose(ours, expected, 1e-5, 1e-6)
