"""Parameters are drawn from the distributions of the contract, as a pure function of seed and name."""

import math
from typing import Any

import numpy as np
import pytest

from backwire_server.engine.errors import GraphError
from backwire_server.sessions.training.initializers import Distribution, Initializer

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def rule(distribution: Distribution, shape: tuple[int, ...] = (300, 200), **figures: Any) -> Initializer:
    return Initializer(figures.pop("dtype", F64), shape, distribution, **figures)


@pytest.mark.parametrize("distribution", Distribution)
@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_value_depends_on_seed_and_name_alone(distribution: Distribution, dtype: Any) -> None:
    drawn = rule(distribution, (6, 5), dtype=dtype)
    value = drawn.draw(7, "w")
    assert (value.dtype, value.shape, value.nbytes) == (dtype, (6, 5), drawn.nbytes)
    np.testing.assert_array_equal(value, drawn.draw(7, "w"))
    if distribution is not Distribution.CONSTANT:
        assert not np.array_equal(value, drawn.draw(8, "w"))
        assert not np.array_equal(value, drawn.draw(7, "v"))


def test_seeds_of_64_bits_and_any_name_will_do() -> None:
    drawn = rule(Distribution.NORMAL, (4,))
    assert not np.array_equal(drawn.draw(2**64 - 1, "größe/重み"), drawn.draw(2**63 - 1, "größe/重み"))


def test_a_constant_is_its_location() -> None:
    assert (rule(Distribution.CONSTANT, location=2.5).draw(0, "w") == 2.5).all()


def test_uniform_lies_between_its_bounds() -> None:
    value = rule(Distribution.UNIFORM, location=-3, scale=5).draw(0, "w")
    assert value.min() >= -3
    assert value.max() <= 5
    assert value.mean() == pytest.approx(1, abs=0.1)
    assert value.std() == pytest.approx(8 / math.sqrt(12), rel=0.02)


def test_normal_has_its_mean_and_deviation() -> None:
    value = rule(Distribution.NORMAL, location=-3, scale=5).draw(0, "w")
    assert value.mean() == pytest.approx(-3, abs=0.1)
    assert value.std() == pytest.approx(5, rel=0.02)


def test_a_truncated_normal_stays_within_two_deviations() -> None:
    value = rule(Distribution.TRUNCATED_NORMAL, location=-3, scale=5).draw(0, "w")
    assert -13 <= value.min() < -12.9
    assert 6.9 < value.max() <= 7
    assert value.mean() == pytest.approx(-3, abs=0.1)
    assert value.std() == pytest.approx(5 * 0.8796, rel=0.02)  # sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))


@pytest.mark.parametrize(
    ("shape", "axis", "fan_in", "fan_out"),
    [
        ((300, 200), 1, 300, 200),  # Gemm, [in, out]
        ((300, 200), 0, 200, 300),  # a weight, [out, in]
        ((64, 32, 3, 5), 0, 32 * 15, 64 * 15),  # a convolution, [out, in, h, w]
        ((32, 64, 3, 5), 1, 32 * 15, 64 * 15),  # a transposed one, [in, out, h, w]
        ((50_000,), 0, 1, 50_000),
    ],
)
def test_scaled_distributions_follow_the_fans(shape: Any, axis: int, fan_in: int, fan_out: int) -> None:
    gain = 1.5
    expected = {
        Distribution.GLOROT_UNIFORM: gain * math.sqrt(6 / (fan_in + fan_out)),
        Distribution.GLOROT_NORMAL: gain * math.sqrt(2 / (fan_in + fan_out)),
        Distribution.HE_UNIFORM: gain * math.sqrt(3 / fan_in),
        Distribution.HE_NORMAL: gain / math.sqrt(fan_in),
    }
    for distribution, figure in expected.items():
        value = rule(distribution, shape, gain=gain, unit_axis=axis).draw(1, "w")
        if "UNIFORM" in distribution.name:
            assert abs(value).max() <= figure
            assert abs(value).max() == pytest.approx(figure, rel=0.01)
        else:
            assert value.std() == pytest.approx(figure, rel=0.02)
            assert abs(value.mean()) < 0.05 * figure


@pytest.mark.parametrize(("shape", "axis"), [((6, 4), 0), ((6, 4), 1), ((4, 4), 0), ((3, 2, 5), 1), ((2, 3, 4), 2)])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_orthogonal_has_orthonormal_rows_or_columns(shape: Any, axis: int, dtype: Any) -> None:
    value = rule(Distribution.ORTHOGONAL, shape, unit_axis=axis, gain=2.0, dtype=dtype).draw(3, "w")
    matrix = np.moveaxis(value.astype(np.float64), axis, 0).reshape(shape[axis], -1) / 2
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-6)


@pytest.mark.parametrize("distribution", Distribution)
def test_a_parameter_without_elements_can_be_drawn(distribution: Distribution) -> None:
    assert rule(distribution, (0, 3)).draw(0, "w").shape == (0, 3)


@pytest.mark.parametrize(
    ("figures", "field"),
    [
        ({"gain": math.nan}, "gain"),
        ({"scale": math.inf}, "scale"),
        ({"location": 1e39, "dtype": F32}, "location"),
        ({"dtype": np.dtype(np.int64)}, "dtype"),
        ({"unit_axis": 2}, "unit_axis"),
        ({"unit_axis": -1}, "unit_axis"),
    ],
)
def test_a_wrong_figure_is_named(figures: Any, field: str) -> None:
    with pytest.raises(GraphError) as caught:
        rule(Distribution.HE_NORMAL, **figures)
    assert caught.value.field == field


def test_ranges_that_make_no_sense_are_refused() -> None:
    with pytest.raises(GraphError, match="wrong order"):
        rule(Distribution.UNIFORM, location=2, scale=1)
    with pytest.raises(GraphError, match="zero or more"):
        rule(Distribution.NORMAL, scale=-1)
    with pytest.raises(GraphError, match="too long"):
        rule(Distribution.ORTHOGONAL, (10_000, 10_000))
