"""GridSample: the neighbours of each place by GatherND, mixed by a product with their weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.ops.resampling import choice, wide
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import require, require_equal, require_rank
from backwire_server.engine.values import O, Value

# Row p has the coefficients of t^p in the weights of the neighbours, t being the distance to the one on the left.
KEYS = [[0.0, 1.0, 0.0, 0.0], [-0.75, 0.0, 0.75, 0.0], [1.5, -2.25, 1.5, -0.75], [-0.75, 1.25, -1.25, 0.75]]
KERNELS = {"nearest": [[1.0]], "linear": [[1.0, 0.0], [-1.0, 1.0]], "cubic": KEYS}
OLD_NAMES = {"bilinear": "linear", "bicubic": "cubic"}
MARGIN = 2  # how far from the image a neighbour may lie


@function(
    "GridSample",
    samples=[
        case(F(1, 2, 3, 4), F(1, 2, 3, 2, low=-0.9, high=0.9)),
        case(F(2, 1, 3, 3), F(2, 1, 2, 2), mode="cubic", padding_mode="border", align_corners=1),
        case(F(1, 1, 3, 2), F(1, 2, 2, 2), padding_mode="reflection"),
        case(F(1, 1, 3, 4), F(1, 2, 2, 2), mode="nearest"),
        case(F(1, 1, 2, 3, 2), F(1, 1, 2, 1, 3), align_corners=1),
    ],
)
def grid_sample(
    x: Value, grid: Value, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Value:
    """x [N, C, *spatial] interpolated at the places of the grid [N, *places, spatial axes], as [N, C, *places].

    A place lists its positions from the last axis to the first; -1 and 1 are the outer edges of the image or, with
    `align_corners`, the centres of its outermost elements. Beyond, there are zeros, the border or reflections.
    """
    mode = choice("mode", OLD_NAMES.get(mode, mode), KERNELS)
    choice("padding_mode", padding_mode, ("zeros", "border", "reflection"))
    require_rank(x, 3)
    require_rank(grid, x.rank, x.rank)
    require(grid, "f")
    spatial = [int(size) for size in x.shape[2:]]
    require_equal(grid.shape[-1], len(spatial), "positions in a place of the grid and spatial axes")
    require_equal(grid.shape[0], x.shape[0], "batch sizes of the grid and x")
    if not all(spatial):
        raise ShapeMismatch("an image without elements has nothing to sample; give one of at least one element")
    points, index, weights = wide(grid), None, None
    for axis, length in enumerate(spatial):
        position = O.Reshape(O.Gather(points, [len(spatial) - 1 - axis], axis=-1), [0, -1, 1])
        source, factor = _neighbours(position, length, mode, padding_mode, bool(align_corners))
        index = source if index is None else _outer(O.Add, index * length, source)
        weights = factor if weights is None else _outer(O.Mul, weights, factor)
    assert index is not None
    assert weights is not None
    values = x if mode == "nearest" else wide(x, points.dtype.name)
    flat = O.Reshape(O.Transpose(values, perm=(0, *range(2, x.rank), 1)), [0, -1, int(x.shape[1])])
    picked = O.GatherND(flat, O.Unsqueeze(index, [-1]), batch_dims=1)
    if mode == "nearest":
        mixed = O.Where(weights > 0.5, O.Squeeze(picked, [2]), picked.like(0))
    else:
        mixed = O.Unsqueeze(O.CastLike(weights, picked), [2]) @ picked
    shaped = O.Reshape(mixed, [0, *grid.shape[1:-1], int(x.shape[1])])
    return O.CastLike(O.Transpose(shaped, perm=(0, x.rank - 1, *range(1, x.rank - 1))), x)


def _outer(combine: Any, a: Value, b: Value) -> Value:
    """Returns every pairing along the last axis of values [N, places, each]."""
    return O.Reshape(combine(O.Unsqueeze(a, [3]), O.Unsqueeze(b, [2])), [0, 0, int(a.shape[2]) * int(b.shape[2])])


def _neighbours(position: Value, length: int, mode: str, padding_mode: str, align_corners: bool) -> tuple[Value, Value]:
    """Returns where along an axis the neighbours of the positions [N, places, 1] lie, and their weights."""
    at = (position + 1.0) * ((length - 1) / 2) if align_corners else ((position + 1.0) * length - 1.0) * 0.5
    low, high = (0.0, length - 1.0) if align_corners else (-0.5, length - 0.5)
    if mode == "nearest":
        at = O.Round(at)
    if padding_mode == "border":
        outside = O.Or(at < low, at > high)  # between centre and edge, cubic weights of the border differ from it
        at = O.Where(outside, O.Clip(at, 0.0, length - 1.0), at)
    elif padding_mode == "reflection":
        at = _reflected(at, low, high)
    left = O.Round(at) if mode == "nearest" else O.Floor(at)
    kernel = np.array(KERNELS[mode], at.dtype)
    offsets = np.arange(kernel.shape[1]) - (kernel.shape[1] - 1) // 2
    powers = [(at - left) * 0.0 + 1.0, *((at - left) ** power for power in range(1, len(kernel)))]
    taps = O.Clip(left + at.builder.constant(offsets.astype(at.dtype)), float(-MARGIN), float(length - 1 + MARGIN))
    place = O.Cast(taps + float(MARGIN), to="int64")
    at.builder.make(int(length) + 2 * MARGIN)
    around = np.arange(-MARGIN, length + MARGIN)
    source = O.Gather(at.builder.constant(_source(around, low, high, padding_mode)), place)
    weights = O.Concat(*powers, axis=-1) @ at.builder.constant(kernel)
    if padding_mode == "zeros":
        weights = weights * O.Gather(at.builder.constant(((around >= 0) & (around < length)).astype(at.dtype)), place)
    return source, weights


def _reflected(at: Value, low: float, high: float) -> Value:
    """Returns the places, those beyond the bounds reflected at them as often as it takes."""
    span = high - low
    if span == 0:
        return at * 0.0
    way = at - low
    rest = way - O.Floor(way * (0.5 / span)) * (2 * span)
    return (low + span) - O.Abs(span - rest)


def _source(around: NDArray[Any], low: float, high: float, padding_mode: str) -> NDArray[Any]:
    """Returns the element that stands for each place in or near the image."""
    if padding_mode == "reflection" and high > low:
        around = high - np.abs((high - low) - (around - low) % (2 * (high - low)))
    return np.clip(around, np.ceil(low), np.floor(high)).astype(np.int64)
