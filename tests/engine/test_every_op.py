"""What holds for every operator in the table: types as inferred, gradients as finite differences say."""

from collections.abc import Callable
from typing import Any

import pytest

from backwire_server.engine.differentiate import differentiate, is_float
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample

INTERNAL_WITHOUT_SAMPLES = {"MaxPoolingGradient", "MaxPoolingSelect"}  # need arguments that fit together; by MaxPool


def test_every_operator_has_documentation_and_samples() -> None:
    for name, op in OPS.items():
        assert op.doc, name
        assert op.samples or name in INTERNAL_WITHOUT_SAMPLES, name


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_results_have_the_inferred_type(bench_of: Callable[..., Any], op_name: str, sample: Sample, dtype: str) -> None:
    bench = bench_of(op_name, sample, dtype)
    results = bench.evaluate(bench.outputs, bench.leaves)
    for value, result in zip(bench.outputs, results, strict=True):
        assert result.shape == value.shape
        assert result.dtype == value.dtype
        if bench.leaves and is_float(value.dtype) and op_name not in ("Cast", "RandomStream"):
            assert result.dtype == dtype


def test_gradient_agrees_with_central_differences(
    bench_of: Callable[..., Any], error_of: Callable[..., Any], op_name: str, sample: Sample
) -> None:
    bench = bench_of(op_name, sample)
    names = tuple(bench.leaves)
    outputs = [value for value in bench.outputs if is_float(value.dtype)]
    if not (names and outputs):
        assert differentiate(bench.builder, {}, names) == dict.fromkeys(names)
        return
    error, gradients = error_of(bench, outputs, names, "v")
    assert error < 1e-6
    if gradients:
        error, _ = error_of(bench, gradients, tuple(bench.leaves), "u")
        assert error < 1e-6, "the gradient of the gradient"
