"""What holds for every JAX kernel: it gives what the numpy kernel gives."""

from typing import Any

import pytest

pytest.importorskip("jax")

from tests.xla.kernels import Call, check

from backwire_server.engine import ops as _engine_ops  # noqa: F401  # fills the operator table
from backwire_server.engine.registry import OPS, Sample
from backwire_server.xla.registry import NotTraceable, kernel_of

PRIMITIVES = [name for name, op in OPS.items() if op.kernel is not None]
MISSING: set[str] = {
    "MaxPooling",
    "MaxPoolingGradient",
    "MaxPoolingIndices",
    "MaxPoolingSelect",
    "RegionForm",
    "RegionMaxima",
    "RegionPeaks",
    "RegionWeights",
    "SumPooling",
    "SumPoolingGradient",
    "TfIdfVectorizer",
}


def test_every_primitive_operator_has_a_kernel() -> None:
    missing = set()
    for name in PRIMITIVES:
        try:
            kernel_of(name)
        except NotTraceable:
            missing.add(name)
    assert missing == MISSING


@pytest.mark.parametrize("name", [name for name in PRIMITIVES if name not in MISSING])
def test_kernel_gives_what_the_numpy_kernel_gives(name: str) -> None:
    check(*(in_type(name, each, dtype) for dtype in ("float64", "float32", "float16") for each in OPS[name].samples))


def in_type(name: str, sample: Sample, dtype: str) -> Call:
    """Returns the sample as a call with its floats of that type."""
    inputs: list[Any] = [x.astype(dtype) if x is not None and x.dtype.kind == "f" else x for x in sample.inputs]
    return Call(name, tuple(inputs), sample.attributes, sample.n_outputs)
