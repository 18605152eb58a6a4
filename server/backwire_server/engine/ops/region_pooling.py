"""Pooling over regions of interest: RoiAlign by bilinear interpolation, MaxRoiPool over whole elements."""

import numpy as np

from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.region_peaks import largest_share
from backwire_server.engine.ops.region_sampling import image_index
from backwire_server.engine.ops.resampling import choice
from backwire_server.engine.registry import function, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import common_dtype, require, require_equal, require_rank
from backwire_server.engine.values import O, Value

Ints = tuple[int, ...]

ROIS = np.array([[0.3, 0.9, 3.2, 3.6], [1.1, 0.2, 2.3, 4.7]])


@function(
    "RoiAlign",
    samples=[
        case(F(2, 2, 4, 5), ROIS, I(1, 0), output_height=2, output_width=3),
        case(F(1, 1, 4, 4), ROIS * 2.0, I(0, 0), spatial_scale=0.55, sampling_ratio=2, output_width=2),
        case(
            F(1, 1, 5, 4),
            ROIS + 0.13,
            I(0, 0),
            output_height=2,
            coordinate_transformation_mode="output_half_pixel",
        ),
        case(F(2, 1, 4, 5), ROIS, I(1, 0), output_height=2, output_width=2, mode="max"),
    ],
)
def roi_align(
    x: Value,
    rois: Value,
    batch_indices: Value,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """The mean of x [N, C, H, W] at places spread over each cell of each region, as [regions, C, height, width].

    (He et al. 2017.) A region of `rois` [regions, 4] is x1, y1, x2, y2, times `spatial_scale`, in the image that
    `batch_indices` names. Each cell has `sampling_ratio` places along each axis, or one for each element it is wide,
    where x is interpolated linearly; places more than an element outside give 0. The mode max takes the largest
    product of an element and its weight. Gradients flow to x and to the regions.
    """
    choice("mode", mode, ("avg", "max"))
    pixel = choice(
        "coordinate_transformation_mode", coordinate_transformation_mode, ("half_pixel", "output_half_pixel")
    )
    _check(x, rois, 4, (output_height, output_width), spatial_scale)
    require(batch_indices, "i")
    require_rank(batch_indices, 1, 1)
    require_equal(rois.shape[0], batch_indices.shape[0], "the numbers of regions and of batch indices")
    if sampling_ratio < 0:
        raise InvalidAttribute(f"sampling_ratio is {sampling_ratio}; use 0, to adapt it to the region, or more")
    bounds = rois * spatial_scale - (0.5 if pixel == "half_pixel" else 0.0)
    starts = [O.Gather(bounds, np.array(place), axis=1) for place in (1, 0)]
    sizes = [O.Gather(bounds, np.array(place), axis=1) - start for place, start in zip((3, 2), starts, strict=True)]
    if pixel == "output_half_pixel":
        sizes = [O.Max(size, 1.0) for size in sizes]
    axes = list(zip(starts, sizes, (output_height, output_width), strict=True))
    if mode == "max":
        return largest_share(x, batch_indices, axes, sampling_ratio)
    rows, columns = (
        O.RegionWeights(start, size, cells=cells, ratio=sampling_ratio, length=int(x.shape[axis]))
        for axis, (start, size, cells) in enumerate(axes, start=2)
    )
    shape = (rois.shape[0], x.shape[1], output_height, output_width)
    return O.RegionForm(x, rows, columns, batch_indices, by=0, shape=shape)


def _check(x: Value, rois: Value, width: int, cells: Ints, scale: float) -> None:
    common_dtype([x, rois], "f")
    require_rank(x, 4, 4)
    require_rank(rois, 2, 2)
    require_equal(rois.shape[1], width, "the numbers that a region has and should have")
    if len(cells) != 2 or min(cells) < 1:
        raise InvalidAttribute(f"the cells of a region are {list(cells)}; give a height and a width of at least 1")
    if scale <= 0:
        raise InvalidAttribute(f"spatial_scale is {scale}; it must be above 0")
    if any(size == 0 for size in x.shape[2:]):
        raise ShapeMismatch("there are no elements in the images; regions need some")


WHOLE = np.array([[1.0, 0.0, 1.0, 3.0, 3.0], [0.0, 2.2, 0.7, 9.0, 2.0]])


@function(
    "MaxRoiPool",
    samples=[
        case(F(2, 2, 4, 5), WHOLE, static=(1,), pooled_shape=(2, 2)),
        case(F(2, 1, 3, 4), WHOLE, static=(1,), pooled_shape=(3, 1), spatial_scale=0.7),
    ],
)
def max_roi_pool(x: Value, rois: Value, *, pooled_shape: Ints, spatial_scale: float = 1.0) -> Value:
    """The largest element of x [N, C, H, W] in each cell of each region, as [regions, C, *pooled_shape].

    (Girshick 2015.) A region of `rois` [regions, 5] is the number of its image, then x1, y1, x2, y2, which are
    multiplied by `spatial_scale` and rounded to whole elements, the last ones included. Cells overlap by parts of an
    element; one outside the image is 0. The gradient goes to the largest element.
    """
    _check(x, rois, 5, pooled_shape, spatial_scale)
    place = O.RegionMaxima(x, rois, pooled_shape=pooled_shape, spatial_scale=spatial_scale)
    return O.Where(place >= 0, O.Gather(O.Reshape(x, [-1]), O.Max(place, 0)), x.like(0.0))


def _maxima_type(x: Value, rois: Value, *, pooled_shape: Ints, spatial_scale: float) -> TensorType:
    return TensorType.of(np.int64, (rois.shape[0], x.shape[1], *pooled_shape))


@op(
    "RegionMaxima",
    shape=_maxima_type,
    samples=[case(F(2, 2, 4, 5), WHOLE, static=(1,), pooled_shape=(2, 2), spatial_scale=1.0)],
    internal=True,
)
def region_maxima(x: Array, rois: Array, *, pooled_shape: Ints, spatial_scale: float) -> Array:
    """Where in x, in C order, the largest element of each cell is; -1 for an empty cell. Used by MaxRoiPool."""
    images, channels, height, width = x.shape
    planes = np.arange(channels) * height * width
    result = np.full((len(rois), channels, *pooled_shape), -1, np.int64)
    for index, (image, *bounds) in enumerate(rois.astype(np.float64)):
        whole_image = image_index(image, images)
        x1, y1, x2, y2 = np.floor(np.array(bounds) * spatial_scale + 0.5).astype(np.int64).tolist()
        rows, columns = _cells(y1, y2, pooled_shape[0], height), _cells(x1, x2, pooled_shape[1], width)
        for place in np.ndindex(*pooled_shape):
            (top, bottom), (left, right) = rows[place[0]], columns[place[1]]
            if top < bottom and left < right:
                cell = x[whole_image, :, top:bottom, left:right]
                best = cell.reshape(channels, (bottom - top) * (right - left)).argmax(1)
                row, column = np.divmod(best, right - left)
                flat = whole_image * channels * height * width + planes + (top + row) * width + left + column
                result[(index, slice(None), *place)] = flat
    return result


def _cells(first: int, last: int, count: int, size: int) -> list[tuple[int, int]]:
    """Returns the bounds of the cells that the elements first to last are cut into, within an axis of that size."""
    length = max(last - first + 1, 1)
    bounds = [(first + place * length // count, first - (-(place + 1) * length // count)) for place in range(count)]
    return [(min(max(a, 0), size), min(max(b, 0), size)) for a, b in bounds]
