"""What holds for every JAX kernel: it gives what the numpy kernel gives."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

from tests.xla.kernels import Call, check

from backwire_server.engine import ops as _engine_ops  # noqa: F401  # fills the operator table
from backwire_server.engine.ops.pooling import max_pooling
from backwire_server.engine.registry import OPS
from backwire_server.engine.samples import Sample, case
from backwire_server.xla.registry import NotTraceable, kernel_of

DRAWS = np.random.default_rng(11)


def pooled(size: tuple[int, int], **geometry: Any) -> dict[str, list[Sample]]:
    """Returns samples of what is made of a pooling whose input has equal elements."""
    x = DRAWS.integers(-3, 3, (2, 2, *size)).astype(np.float64)
    y = max_pooling(x, **geometry)
    return {
        "MaxPoolingGradient": [case(DRAWS.normal(size=y.shape), x, y, **geometry)],
        "MaxPoolingSelect": [case(DRAWS.normal(size=x.shape), x, y, **geometry)],
        "MaxPoolingIndices": [case(x, column_major=order, **geometry) for order in (0, 1)],
    }


POOLINGS = [
    pooled((4, 5), kernel=(2, 2), strides=(2, 1), pads=(1, 0, 0, 1), dilations=(1, 2)),
    pooled((9, 8), kernel=(7, 6), strides=(1, 1), pads=(3, 0, 0, 2), dilations=(1, 1)),
]
PRIMITIVES = [name for name, op in OPS.items() if op.kernel is not None]
DTYPES = ("float64", "float32", "float16")


def test_every_primitive_operator_has_a_kernel() -> None:
    assert [name for name in PRIMITIVES if not callable(kernel_of(name))] == []


@pytest.mark.parametrize("name", PRIMITIVES)
def test_kernel_gives_what_the_numpy_kernel_gives(name: str) -> None:
    samples = [*OPS[name].samples, *(sample for pooling in POOLINGS for sample in pooling.get(name, []))]
    check(*(in_type(name, each, dtype) for dtype in DTYPES for each in samples))


def test_an_operator_without_a_kernel_is_refused_with_the_remedy() -> None:
    with pytest.raises(NotTraceable, match="Gemm has no JAX kernel; use the numpy executor"):
        kernel_of("Gemm")


def in_type(name: str, sample: Sample, dtype: str) -> Call:
    """Returns the sample as a call with its floats of that type."""
    inputs: list[Any] = [x.astype(dtype) if x is not None and x.dtype.kind == "f" else x for x in sample.inputs]
    return Call(name, tuple(inputs), sample.attributes, sample.n_outputs)
