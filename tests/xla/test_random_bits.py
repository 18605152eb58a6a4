"""Random numbers are the same on both executors, bit by bit."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

from tests.xla.compiling import compiled
from tests.xla.kernels import Call, call

from backwire_server.engine import ops as _engine_ops  # noqa: F401  # fills the operator table
from backwire_server.xla.registry import numerics

KEYS = [(0, 0), (1, 2), (2**64 - 1, 2**63 + 12345)]
STREAMS: list[tuple[tuple[int, ...], int]] = [((), 0), ((1,), 1), ((3, 7), 2**32 - 1), ((0, 2), 5), ((1001,), 77)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_stream_has_the_bits_that_numpy_draws(dtype: str) -> None:
    def streams(key: Any) -> list[Call]:
        return [call("RandomStream", key, shape=shape, dtype=dtype, stream=stream) for shape, stream in STREAMS]

    drawing = compiled(lambda key: [each.by_jax([key])[0] for each in streams(np.zeros(2, np.uint64))])
    for key in KEYS:
        given = np.array(key, np.uint64)
        with numerics():
            found = drawing(given)
        for ours, each in zip(found, streams(given), strict=True):
            (expected,) = each.by_numpy()
            assert ours.dtype == expected.dtype
            np.testing.assert_array_equal(np.asarray(ours), expected)
