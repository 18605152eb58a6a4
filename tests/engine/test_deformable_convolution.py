"""DeformConv: Conv where nothing is moved, shifted images where all is, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.one_node import compute, gradients, runtime

from backwire_server.engine.errors import EngineError, InvalidAttribute, ShapeMismatch

Array = NDArray[Any]

DRAWS = np.random.default_rng(8)
GEOMETRY: dict[str, Any] = {"pads": (1, 2, 0, 1), "strides": (2, 1), "dilations": (1, 2), "group": 2}


def draw(*shape: int) -> Array:
    return DRAWS.normal(size=shape)


def test_without_offsets_it_is_a_convolution() -> None:
    x, weight, bias = draw(2, 4, 7, 8), draw(6, 2, 3, 2), draw(6)
    expected = compute("Conv", x, weight, bias, **GEOMETRY)
    still = np.zeros((2, 12, *expected.shape[2:]))
    np.testing.assert_allclose(compute("DeformConv", x, weight, still, bias, **GEOMETRY), expected, atol=1e-12)


def test_whole_offsets_shift_the_image() -> None:
    x, weight = draw(1, 1, 6, 6), draw(1, 1, 1, 1)
    offset = np.zeros((1, 2, 6, 6))
    offset[:, 0], offset[:, 1] = 2.0, -1.0
    found = compute("DeformConv", x, weight, offset)
    expected = np.zeros_like(x)
    expected[..., :4, 1:] = x[..., 2:, :5] * weight[0, 0, 0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_onnxruntimes(masked: bool) -> None:
    x, weight, bias = (each.astype(np.float32) for each in (draw(2, 4, 7, 8), draw(6, 2, 3, 2), draw(6)))
    offset = (2 * draw(2, 24, 3, 9)).astype(np.float32)
    mask = draw(2, 12, 3, 9).astype(np.float32) if masked else None
    inputs = (x, weight, offset, bias, *([mask] if masked else []))
    settings = {**GEOMETRY, "offset_group": 2}
    found = compute("DeformConv", *inputs, **settings)
    np.testing.assert_allclose(found, runtime("DeformConv", *inputs, opset=19, **settings), rtol=1e-3, atol=1e-4)


def test_gradient_by_offsets_is_the_slope_of_the_image() -> None:
    rows = np.broadcast_to(np.arange(5.0)[:, None] * 3.0, (1, 1, 5, 5)).copy()
    offset = np.full((1, 2, 5, 5), 0.25)
    found = gradients("DeformConv", rows, np.ones((1, 1, 1, 1)), offset, seed=np.ones((1, 1, 5, 5)))["x2"]
    np.testing.assert_allclose(found[0, 0, :4, :4], 3.0)
    np.testing.assert_allclose(found[0, 1, :4, :4], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "attributes", "error", "message"),
    [
        (((1, 4, 5, 5), (2, 4, 2, 2), (1, 8, 5, 5)), {}, ShapeMismatch, r"it must be \[N, 8, 4, 4\]"),
        (((1, 4, 5, 5), (2, 4, 2, 2), (2, 8, 4, 4)), {}, ShapeMismatch, "batch sizes"),
        (((1, 4, 5, 5), (2, 3, 2, 2), (1, 8, 4, 4)), {}, ShapeMismatch, "channels that the weights are for"),
        (((1, 4, 5, 5), (2, 4, 2, 2), (1, 8, 4, 4), (2,), (1, 3, 4, 4)), {}, ShapeMismatch, "mask is"),
        (((1, 4, 5, 5), (2, 4, 2, 2), (1, 8, 4, 4)), {"offset_group": 3}, InvalidAttribute, "offset_group is 3"),
        (((1, 4, 5, 5), (2, 4, 2, 2), (1, 8, 4, 4)), {"group": 0}, InvalidAttribute, "group is 0"),
        (((1, 4, 5, 5), (2, 4, 2, 2), (1, 8, 4, 4)), {"kernel_shape": (3, 3)}, InvalidAttribute, "kernel_shape is"),
    ],
)
def test_malformed_convolutions_are_refused(
    shapes: Any, attributes: Any, error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        compute("DeformConv", *(draw(*shape) for shape in shapes), **attributes)
