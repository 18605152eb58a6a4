"""NonMaxSuppression."""

import numpy as np

from backwire_server.engine.errors import InvalidAttribute, InvalidValue
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require, require_equal, require_rank
from backwire_server.engine.values import Value

CORNERS = np.array([[[0.0, 0.0, 1.0, 1.0], [1.0, 1.1, 0.0, 0.1], [0.0, 10.0, 1.0, 11.0]]])


@function(
    "NonMaxSuppression",
    samples=[
        case(CORNERS, F(1, 2, 3), I(3), np.array([0.5]), np.array([0.0]), static=(0, 1, 3, 4)),
        case(F(2, 4, 4, low=0.5), F(2, 1, 4), np.array(2), static=(0, 1), center_point_box=1),
    ],
)
def non_max_suppression(
    boxes: Value,
    scores: Value,
    max_output_boxes_per_class: Value | None = None,
    iou_threshold: Value | None = None,
    score_threshold: Value | None = None,
    *,
    center_point_box: int = 0,
) -> Value:
    """The batch, class and place of each box that stays, as int64 [boxes, 3]: best scores first within a class.

    Of `boxes` [batch, n, 4] with `scores` [batch, classes, n], those stay that score above `score_threshold` and
    overlap none that stays and scores more by an intersection over union above `iou_threshold` (0); at most
    `max_output_boxes_per_class` (0) of each class. A box is y1, x1, y2, x2, any two opposite corners, or with
    `center_point_box` x, y, width and height. The shape depends on the elements, so the graph is compiled anew for
    each set of boxes and scores.
    """
    require(boxes, "f")
    require(scores, "f")
    require_rank(boxes, 3, 3)
    require_rank(scores, 3, 3)
    require_equal(boxes.shape[2], 4, "the numbers that a box has and should have")
    require_equal(boxes.shape[0], scores.shape[0], "batch sizes of boxes and scores")
    require_equal(boxes.shape[1], scores.shape[2], "the numbers of boxes and of their scores")
    if center_point_box not in (0, 1):
        raise InvalidAttribute(f"center_point_box is {center_point_box}; use 0 or 1")
    most = 0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.known.reshape(()))
    overlap = 0.0 if iou_threshold is None else float(iou_threshold.known.reshape(()))
    least = -np.inf if score_threshold is None else float(score_threshold.known.reshape(()))
    if not 0.0 <= overlap <= 1.0:
        raise InvalidValue(f"iou_threshold is {overlap}; it must lie in [0, 1]")
    corners = _corners(boxes.known.astype(np.float64), center_point_box)
    figures = scores.known.astype(np.float64)
    kept = [
        (batch, group, place)
        for batch, group in np.ndindex(figures.shape[:2])
        for place in _kept(corners[batch], figures[batch, group], most, overlap, least)
    ]
    return boxes.builder.constant(np.array(kept, np.int64).reshape(-1, 3))


def _corners(boxes: Array, center_point_box: int) -> Array:
    """Returns the boxes as their lower corners and their upper corners, [batch, n, 2 corners, 2 axes]."""
    if center_point_box:
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        first, second = centre - half, centre + half
    else:
        first, second = boxes[..., :2], boxes[..., 2:]
    return np.stack((np.minimum(first, second), np.maximum(first, second)), -2)


def _kept(corners: Array, scores: Array, most: int, overlap: float, least: float) -> list[int]:
    """Returns the places of the boxes that stay, best first; of equal scores the first counts as better."""
    left = np.argsort(-scores, kind="stable")
    left = left[scores[left] > least]
    kept: list[int] = []
    while left.size and len(kept) < most:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        left = left[_intersection_over_union(corners[best], corners[left]) <= overlap]
    return kept


def _intersection_over_union(box: Array, others: Array) -> Array:
    lower, upper = np.maximum(box[0], others[:, 0]), np.minimum(box[1], others[:, 1])
    shared = np.prod(np.clip(upper - lower, 0, None), -1)
    union = np.prod(box[1] - box[0]) + np.prod(others[:, 1] - others[:, 0], -1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)
