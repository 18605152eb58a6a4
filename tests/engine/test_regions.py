"""RoiAlign, MaxRoiPool and NonMaxSuppression against onnxruntime, their gradients by regions, and their errors."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.one_node import compute, gradients, runtime

from backwire_server.engine.errors import EngineError, InvalidAttribute, InvalidValue, ShapeMismatch

Array = NDArray[Any]

DRAWS = np.random.default_rng(6)
IMAGES = DRAWS.normal(size=(3, 2, 9, 7)).astype(np.float32)
BATCH = np.array([2, 0, 0, 1, 2])
REGIONS = np.array(
    [[0.0, 0.0, 6.0, 8.0], [2.2, 1.4, 3.1, 7.9], [-3.0, -2.0, 4.0, 3.3], [5.5, 6.1, 12.0, 14.0], [30, 30, 40, 40]],
    np.float32,
)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("pixel", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 3])
def test_roi_align_is_onnxruntimes(mode: str, pixel: str, ratio: int) -> None:
    settings: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": pixel,
        "sampling_ratio": ratio,
        "output_height": 3,
        "output_width": 2,
        "spatial_scale": 0.9,
    }
    found = compute("RoiAlign", IMAGES, REGIONS, BATCH, **settings)
    expected = runtime("RoiAlign", IMAGES, REGIONS, BATCH, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_max_roi_pool_is_onnxruntimes(scale: float) -> None:
    rois = np.concatenate((BATCH[:, None].astype(np.float32), np.abs(REGIONS)), 1)
    settings: dict[str, Any] = {"pooled_shape": (3, 4), "spatial_scale": scale}
    expected = runtime("MaxRoiPool", IMAGES, rois, **settings)
    np.testing.assert_array_equal(compute("MaxRoiPool", IMAGES, rois, **settings), expected)


def test_roi_align_of_a_ramp_moves_with_its_region() -> None:
    """Where x is its own column number, the mean of a cell is the column of its centre."""
    ramp = np.broadcast_to(np.arange(8.0), (1, 1, 8, 8)).copy()
    region = np.array([[2.0, 1.0, 5.0, 6.0]])
    found = gradients("RoiAlign", ramp, region, np.array([0]), seed=np.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(found["x1"], [[0.5, 0.0, 0.5, 0.0]], atol=1e-12)
    np.testing.assert_allclose(found["x0"].sum(), 1.0)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_region_that_is_not_a_number_spoils_no_other(mode: str) -> None:
    regions = REGIONS.copy()
    regions[1] = np.nan
    found = compute("RoiAlign", IMAGES, regions, BATCH, mode=mode)
    np.testing.assert_array_equal(found[2:], compute("RoiAlign", IMAGES, REGIONS, BATCH, mode=mode)[2:])


def boxes_and_scores(center_point_box: int) -> tuple[Array, Array]:
    boxes, scores = DRAWS.uniform(0, 4, (2, 30, 4)), DRAWS.normal(size=(2, 3, 30))
    if center_point_box:
        boxes[..., 2:] += 0.5
    return boxes.astype(np.float32), scores.astype(np.float32)


@pytest.mark.parametrize("center_point_box", [0, 1])
@pytest.mark.parametrize("most", [0, 4, 30])
@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_non_max_suppression_is_onnxruntimes(center_point_box: int, most: int, overlap: float) -> None:
    boxes, scores = boxes_and_scores(center_point_box)
    limits = (np.array([most]), np.array([overlap], np.float32), np.array([-0.2], np.float32))
    found = compute("NonMaxSuppression", boxes, scores, *limits, center_point_box=center_point_box)
    expected = runtime("NonMaxSuppression", boxes, scores, *limits, center_point_box=center_point_box)
    np.testing.assert_array_equal(found, expected)


def test_equal_scores_keep_the_first_box() -> None:
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 6, 6]]], np.float32)
    found = compute("NonMaxSuppression", boxes, np.ones((1, 1, 3), np.float32), np.array(9))
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 0, 2]])


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "error", "message"),
    [
        ("RoiAlign", (IMAGES, REGIONS, BATCH), {"mode": "sum"}, InvalidAttribute, "use avg, max"),
        ("RoiAlign", (IMAGES, REGIONS, BATCH), {"sampling_ratio": -1}, InvalidAttribute, "sampling_ratio is -1"),
        ("RoiAlign", (IMAGES, REGIONS, BATCH), {"output_width": 0}, InvalidAttribute, "at least 1"),
        ("RoiAlign", (IMAGES, REGIONS, BATCH), {"spatial_scale": 0.0}, InvalidAttribute, "above 0"),
        ("RoiAlign", (IMAGES, REGIONS * 1e6, BATCH), {}, InvalidValue, "clip the regions"),
        ("RoiAlign", (IMAGES, REGIONS, BATCH[:2]), {}, ShapeMismatch, "numbers of regions"),
        ("RoiAlign", (IMAGES, REGIONS, BATCH + 1), {}, InvalidValue, "image 3, but there are 3"),
        ("RoiAlign", (IMAGES, REGIONS, BATCH + 1), {"mode": "max"}, InvalidValue, "image 3, but there are 3"),
        ("MaxRoiPool", (IMAGES, REGIONS), {"pooled_shape": (2, 2)}, ShapeMismatch, "numbers that a region has"),
        ("MaxRoiPool", (IMAGES, np.ones((1, 5), np.float32)), {"pooled_shape": (2,)}, InvalidAttribute, "height"),
        ("NonMaxSuppression", (IMAGES[0], IMAGES[0]), {}, ShapeMismatch, "numbers that a box has"),
        ("NonMaxSuppression", boxes_and_scores(0), {"center_point_box": 2}, InvalidAttribute, "use 0 or 1"),
        (
            "NonMaxSuppression",
            (*boxes_and_scores(0), np.array(3), np.array(1.5, np.float32)),
            {},
            InvalidValue,
            "must lie in",
        ),
    ],
)
def test_malformed_regions_are_refused(
    op: str, inputs: Any, attributes: Any, error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        compute(op, *inputs, **attributes)
