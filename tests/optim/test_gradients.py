"""Norms, non-finite values and clipping."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from backwire_server.optim import Clipping, FlatLayout, OptimizerError, first_non_finite, global_norm
from backwire_server.optim.gradients import BLOCK, norm

Array = NDArray[Any]
F32, F64 = np.dtype("float32"), np.dtype("float64")
vectors = hnp.arrays(F32, st.integers(1, 50), elements=st.floats(-100, 100, width=32))


def clip(clipping: Clipping, *gradients: Array) -> list[Array]:
    factors = clipping.factors(gradients)
    return [clipping.limit(array, factor, array.copy()) for array, factor in zip(gradients, factors, strict=True)]


def test_the_norm_is_over_all_dtypes_together() -> None:
    assert global_norm({F32: np.array([3], F32), F64: np.array([4], F64)}) == 5
    assert global_norm({}) == 0
    assert global_norm({F32: np.zeros(0, F32)}) == 0


@pytest.mark.parametrize("value", [1e30, 1e-30, 1e-44])
def test_the_norm_survives_squares_outside_the_range_of_float32(value: float) -> None:
    vector = np.full(BLOCK * 2 + 5, value, F32)
    assert norm(vector) == pytest.approx(float(vector[0]) * math.sqrt(vector.size), rel=1e-6)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, 3 * BLOCK, 3 * BLOCK + 5])
def test_squares_are_added_block_by_block_in_order_so_that_journals_give_the_same_bits(
    dtype: np.dtype[Any], size: int
) -> None:
    vector = np.random.default_rng(size).normal(size=size).astype(dtype)
    total = 0.0
    for start in range(0, size, BLOCK):
        part = vector[start : start + BLOCK]
        total += float(np.dot(part, part))
    assert norm(vector) == math.sqrt(total)


def test_the_norm_survives_squares_outside_the_range_of_float64() -> None:
    assert norm(np.array([3e200, -4e200])) == pytest.approx(5e200)
    assert norm(np.array([3e-200, -4e-200])) == pytest.approx(5e-200)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7, 9])
def test_the_first_parameter_with_a_non_finite_gradient_is_named(value: float, place: int) -> None:
    layout = FlatLayout({"w": ("float32", (2, 3)), "x": ("float64", (3,)), "b": ("float32", (4,))})
    gradients = layout.zeros()
    gradients[F32][place] = value
    gradients[F32][9] = value
    assert first_non_finite(layout, gradients) == ("w" if place < 6 else "b")
    assert not math.isfinite(global_norm(gradients))
    gradients[F64][1] = math.nan
    assert first_non_finite(layout, gradients) == ("w" if place < 6 else "x")


def test_finite_gradients_have_no_culprit_even_if_their_squares_overflow() -> None:
    layout = FlatLayout({"w": ("float32", (2,))})
    assert first_non_finite(layout, {F32: np.array([3e38, -3e38], F32)}) is None


@given(vectors, st.floats(1e-3, 1e3))
def test_clipping_by_norm_keeps_the_direction_and_bounds_the_norm(gradients: Array, limit: float) -> None:
    (clipped,) = clip(Clipping(global_norm=limit), gradients)
    before, after = norm(gradients), norm(clipped)
    assert after <= limit * (1 + 1e-5)
    if before <= limit:
        np.testing.assert_array_equal(clipped, gradients)
    assert np.dot(clipped.astype(F64), gradients) == pytest.approx(before * after, rel=1e-4)


def test_values_are_limited_before_norms() -> None:
    gradients = np.array([30, 4, -100], F32), np.array([0, 3], F64)
    length = math.sqrt(16 + 16 + 16 + 9)
    clipped = clip(Clipping(value=4, global_norm=1), *gradients)
    np.testing.assert_allclose(clipped[0], np.array([4, 4, -4]) / length, rtol=1e-6)
    np.testing.assert_allclose(clipped[1], np.array([0, 3]) / length, rtol=1e-6)
    assert [array.dtype for array in clipped] == [F32, F64]
    assert gradients[0].tolist() == [30, 4, -100]


def test_each_norm_is_limited_before_the_norm_of_all() -> None:
    clipped = clip(Clipping(norm=5, global_norm=10), np.array([6.0, 8.0]), np.array([[3.0]]))
    assert [array.tolist() for array in clipped] == [[3, 4], [[3]]]
    clipped = clip(Clipping(norm=4, global_norm=2.5), np.array([6.0, 8.0]), np.array([[3.0]]))
    assert [norm(array) for array in clipped] == pytest.approx([4 / 2, 3 / 2])


def test_a_large_vector_is_limited_block_by_block() -> None:
    gradients = np.full(2 * BLOCK + 5, 100, F32)
    (clipped,) = clip(Clipping(value=2, global_norm=1), gradients)
    assert norm(clipped) == pytest.approx(1, rel=1e-5)


def test_no_limits_pass_gradients_through_untouched() -> None:
    gradients = np.ones(3, F32)
    assert Clipping().limit(gradients, Clipping().factors([gradients])[0], np.empty(3, F32)) is gradients


def test_zero_gradients_stay_zero_under_norms() -> None:
    assert Clipping(norm=1, global_norm=1).factors([np.zeros(3, F32)]) == [1]


@pytest.mark.parametrize("field", ["value", "norm", "global_norm"])
@pytest.mark.parametrize("figure", [0, -1, math.nan, math.inf, "much"])
def test_a_limit_that_is_no_positive_number_is_refused(field: str, figure: Any) -> None:
    with pytest.raises(OptimizerError, match=f"{field} is .*; it must be a finite number above 0") as caught:
        Clipping(**{field: figure})
    assert caught.value.field == field
