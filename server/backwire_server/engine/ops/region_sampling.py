"""What RoiAlign is made of: the weights of elements along an axis, and the form that they and an image make."""

from typing import Any

import numpy as np

from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.values import O, Value

Ints = tuple[int, ...]

MOST_SAMPLES = 4096

STARTS, SIZES = np.array([0.3, 1.15]), np.array([2.9, 1.2])


def image_index(number: Any, images: int) -> int:
    """Returns the index of an image as an int; raises InvalidValue when there is none."""
    if not 0 <= number < images:
        raise InvalidValue(f"a region is in image {number}, but there are {images}; number them from 0")
    return int(number)


def samples_within(size: Array, cells: int, ratio: int) -> tuple[Array, Array, Array]:
    """Returns how many samples a cell has in each region, which of the most count, and where in the region they are.

    The latter two are [regions, cells, most samples]; places go from 0 to 1.
    """
    counts = np.full(len(size), ratio) if ratio else np.ceil(np.nan_to_num(np.maximum(size, 0)) / cells)
    if counts.max(initial=0) > MOST_SAMPLES:
        raise InvalidValue(
            f"a cell is interpolated at {counts.max():.0f} places along an axis, but {MOST_SAMPLES} is the most; clip "
            "the regions to the image, or give a smaller sampling_ratio"
        )
    counts = counts.astype(np.int64)
    number = np.arange(counts.max(initial=0))
    within = (number + 0.5) / np.maximum(counts, 1)[:, None]
    share = (np.arange(cells)[:, None] + within[:, None]) / cells
    return counts, np.broadcast_to((number < counts[:, None])[:, None], share.shape), share


def taps(at: Array, length: int) -> tuple[Array, Array, Array]:
    """Returns the element before each place in an axis of that length, the way from there, and which are near it."""
    near = (at >= -1) & (at <= length)
    inside = np.where(near, np.clip(at, 0, length - 1), 0)
    low = np.floor(inside).astype(np.int64)
    return low, inside - low, near


def _weights_type(start: Value, size: Value, *, cells: int, ratio: int, length: int) -> tuple[TensorType, ...]:
    return (TensorType(start.dtype, (start.shape[0], cells, length)),) * 3


@op(
    "RegionWeights",
    shape=_weights_type,
    outputs=3,
    samples=[
        case(STARTS, SIZES, cells=2, ratio=0, length=4),
        case(STARTS - 1.0, SIZES, cells=1, ratio=3, length=3, n_outputs=3),
    ],
    internal=True,
)
def region_weights(start: Array, size: Array, *, cells: int, ratio: int, length: int) -> tuple[Array, Array, Array]:
    """The mean weight [regions, cells, length] of each element in each cell, and its slopes by start and size."""
    first, extent = start.astype(np.float64)[:, None, None], size.astype(np.float64)[:, None, None]
    counts, counted, share = samples_within(size.astype(np.float64), cells, ratio)
    at = first + share * extent
    low, way, near = taps(at, length)
    part = (counted & near) / np.maximum(counts, 1)[:, None, None]
    slope = part * ((at > 0) & (at < length - 1))
    region, cell = np.arange(len(start))[:, None, None], np.arange(cells)[:, None]
    results = []
    for before, after in ((part * (1 - way), part * way), (-slope, slope), (-slope * share, slope * share)):
        weights = np.zeros((len(start), cells, length))
        np.add.at(weights, (region, cell, low), before)
        np.add.at(weights, (region, cell, np.minimum(low + 1, length - 1)), after)
        results.append(weights.astype(start.dtype))
    return results[0], results[1], results[2]


@gradient("RegionWeights")
def _(
    g: tuple[Value | None, ...], y: tuple[Value, ...], start: Value, size: Value, **settings: int
) -> tuple[Value | None, ...]:
    if g[0] is None:  # the weights are piecewise linear: their slopes have no slope
        return None, None
    _, by_start, by_size = O.RegionWeights(start, size, n_outputs=3, **settings)
    return O.ReduceSum(g[0] * by_start, [1, 2], keepdims=0), O.ReduceSum(g[0] * by_size, [1, 2], keepdims=0)


FORM = (F(2, 2, 3, 2), F(2, 2, 4, 3), F(2, 3, 4), F(2, 2, 3))  # y, x, rows, columns


def _support(weights: Array) -> slice:
    """Returns the elements along an axis that any cell gives a weight."""
    found = np.flatnonzero(weights.any(0))
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)


@op(
    "RegionForm",
    shape=lambda a, b, c, batch, by, shape: TensorType(a.dtype, shape),
    samples=[case(*FORM[:by], *FORM[by + 1 :], I(1, 0), by=by, shape=FORM[by].shape) for by in range(len(FORM))],
    internal=True,
)
def region_form(a: Array, b: Array, c: Array, batch: Array, *, by: int, shape: Ints) -> Array:
    """The slope of the form sum y[r, c, p, q] x[batch r, c, h, w] rows[r, p, h] columns[r, q, w] by one of the four.

    The other three are given in this order. The slope by y is the sum over each cell of each region, the others are
    the gradients of that.
    """
    wide = np.float64 if a.dtype == np.float64 else np.float32
    first, second, third = (each.astype(wide, copy=False) for each in (a, b, c))
    result = np.zeros(shape, wide)
    images = shape[0] if by == 1 else len(first if by == 0 else second)
    for region, number in enumerate(batch):
        image = image_index(number, images)
        if by == 0:
            rows, columns = _support(second[region]), _support(third[region])
            part = second[region][:, rows] @ first[image][:, rows, columns]
            result[region] = part @ third[region][:, columns].T
        elif by == 1:
            rows, columns = _support(second[region]), _support(third[region])
            part = second[region][:, rows].T @ first[region] @ third[region][:, columns]
            result[image][:, rows, columns] += part
        elif by == 2:
            columns = _support(third[region])
            part = second[image][:, :, columns] @ third[region][:, columns].T
            result[region] = np.einsum("cpq,chq->ph", first[region], part)
        else:
            rows = _support(third[region])
            part = third[region][:, rows] @ second[image][:, rows]
            result[region] = np.einsum("cpq,cpw->qw", first[region], part)
    return result.astype(a.dtype, copy=False)


@gradient("RegionForm")
def _(
    g: Value, found: Value, a: Value, b: Value, c: Value, batch: Value, *, by: int, shape: Ints
) -> tuple[Value | None, ...]:
    given = [a, b, c]
    given.insert(by, g)

    def slope(of: int) -> Value:
        others = [each for place, each in enumerate(given) if place != of]
        result: Value = O.RegionForm(*others, batch, by=of, shape=given[of].sizes)
        return result

    return (*(slope(of) for of in range(4) if of != by), None)
