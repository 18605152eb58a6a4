"""The error function against the C library's, over all of its regions."""

import math

import numpy as np
import pytest

from backwire_server.engine.erf import erf


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 4), ("float32", 4), ("float16", 1)])
def test_erf_is_exact_to_rounding(dtype: str, tolerance: float) -> None:
    points = np.concatenate([np.linspace(-7, 7, 4001), [0.46875, -0.46875, 4.0, -4.0, 0.0, 1e-300, 30.0]]).astype(dtype)
    expected = np.array([math.erf(float(point)) for point in points])
    found = erf(points)
    assert found.dtype == dtype
    error = np.abs(found.astype(np.float64) - expected) / np.maximum(np.abs(expected), 1e-30)
    assert error.max() <= tolerance * np.finfo(dtype).eps


def test_erf_at_the_ends() -> None:
    with np.errstate(all="ignore"):
        assert erf(np.array([np.inf, -np.inf])).tolist() == [1.0, -1.0]
        assert np.isnan(erf(np.array([np.nan])))[0]
