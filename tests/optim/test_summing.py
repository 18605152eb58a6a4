"""The mean of gradients of several parts, and the norm that is found on the way."""

from typing import Any

import numpy as np
import pytest

from backwire_server.optim import Vectors, global_norm
from backwire_server.optim.gradients import BLOCK, RUN
from backwire_server.optim.summing import divide_sum

F32, F64 = np.dtype("float32"), np.dtype("float64")


def parts(sizes: dict[np.dtype[Any], int], scale: float = 1.0) -> list[Vectors]:
    draw = np.random.default_rng(0)
    return [{dtype: (scale * draw.normal(size=size)).astype(dtype) for dtype, size in sizes.items()} for _ in range(2)]


@pytest.mark.parametrize(
    "sizes", [{F32: 5}, {F32: RUN * BLOCK}, {F32: RUN * BLOCK + BLOCK + 1, F64: 2 * BLOCK - 1}, {F64: 0}, {}]
)
def test_it_is_the_weighted_mean_and_gives_its_norm_to_the_bit(sizes: dict[np.dtype[Any], int]) -> None:
    given = parts(sizes)
    expected = {dtype: (3 * given[0][dtype] + given[1][dtype]) / dtype.type(4) for dtype in sizes}
    found = divide_sum(given, [3, 1], 4)
    for dtype, vector in given[0].items():
        np.testing.assert_allclose(vector, expected[dtype], rtol=1e-5, atol=1e-6)
    assert found == global_norm(given[0])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_norm_is_right_where_squares_leave_the_range(scale: float) -> None:
    given = parts({F32: 2 * BLOCK + 3}, scale)
    assert 0 < divide_sum(given, [1, 1], 2) == global_norm(given[0]) < np.inf


def test_the_norm_is_not_finite_where_an_element_is_not() -> None:
    given = parts({F32: 2 * BLOCK})
    given[1][F32][BLOCK + 1] = np.nan
    assert not np.isfinite(divide_sum(given, [1, 1], 2))
