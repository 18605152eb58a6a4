"""The mode max of RoiAlign: where the largest products of elements and weights are."""

import numpy as np

from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.region_sampling import image_index, samples_within, taps
from backwire_server.engine.registry import gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.values import O, Value

Ints = tuple[int, ...]
Axis = tuple[Value, Value, int]

STARTS, SIZES = np.array([0.3, 1.1]), np.array([2.9, 1.2])


def largest_share(x: Value, batch: Value, axes: list[Axis], ratio: int) -> Value:
    """Returns the largest product of an element of x and its weight at the places in each cell of each region.

    `axes` has for rows and columns where the regions start, their sizes, and the number of cells.
    """
    (start_y, size_y, height), (start_x, size_x, width) = axes
    bounds = (start_y, size_y, start_x, size_x)
    flat, row, column, share_y, share_x, found = O.RegionPeaks(
        x, *bounds, batch, cells=(height, width), ratio=ratio, n_outputs=6
    )
    value = O.Gather(O.Reshape(x, [-1]), flat)
    for start, size, share, place, axis in ((start_y, size_y, share_y, row, 2), (start_x, size_x, share_x, column, 3)):
        first, extent = O.Unsqueeze(start, [1, 2, 3]), O.Unsqueeze(size, [1, 2, 3])
        at = O.Clip(first + share * extent, 0.0, float(int(x.shape[axis]) - 1))
        value = value * (1.0 - O.Abs(at - O.Cast(place, to=x.dtype.name)))
    return O.Where(found, value, 0.0)


def _peaks_type(
    x: Value, start_y: Value, size_y: Value, start_x: Value, size_x: Value, batch: Value, *, cells: Ints, ratio: int
) -> tuple[TensorType, ...]:
    shape = (batch.shape[0], x.shape[1], *cells)
    kinds = (np.int64, np.int64, np.int64, x.dtype, x.dtype, np.bool_)
    return tuple(TensorType.of(kind, shape) for kind in kinds)


@op(
    "RegionPeaks",
    shape=_peaks_type,
    outputs=6,
    samples=[case(F(2, 2, 4, 4), STARTS, SIZES, SIZES, STARTS, I(1, 0), cells=(2, 1), ratio=0, n_outputs=3)],
    internal=True,
)
def region_peaks(
    x: Array,
    start_y: Array,
    size_y: Array,
    start_x: Array,
    size_x: Array,
    batch: Array,
    *,
    cells: Ints,
    ratio: int,
) -> tuple[Array, ...]:
    """Six things about the largest product in each cell. Used by RoiAlign.

    They are its element in C order, the row and the column of that, where in the region the place lies that has it as a
    neighbour, from 0 to 1 along either axis, and whether its weight is other than 0.
    """
    images, channels, height, width = x.shape
    shape = (len(batch), channels, *cells)
    flat, row, column = (np.zeros(shape, np.int64) for _ in range(3))
    share_y, share_x, found = np.zeros(shape, x.dtype), np.zeros(shape, x.dtype), np.zeros(shape, np.bool_)
    p, q = np.indices(cells, sparse=True)
    planes = np.arange(channels)[:, None, None] * height * width
    for region, number in enumerate(batch):
        image = image_index(number, images)
        rows, row_weights, row_shares = _neighbours(start_y[region], size_y[region], cells[0], ratio, height)
        columns, column_weights, column_shares = _neighbours(start_x[region], size_x[region], cells[1], ratio, width)
        if not (rows.size and columns.size):
            continue
        weights = row_weights[:, None, :, None] * column_weights[None, :, None, :]
        products = x[image][:, rows[:, None, :, None], columns[None, :, None, :]] * weights
        flattened = products.reshape(channels, *cells, rows.shape[1] * columns.shape[1])
        best = flattened.argmax(-1)
        i, j = np.divmod(best, columns.shape[1])
        row[region], column[region] = rows[p, i], columns[q, j]
        flat[region] = image * channels * height * width + planes + row[region] * width + column[region]
        share_y[region], share_x[region] = row_shares[p, i], column_shares[q, j]
        found[region] = weights[p, q, i, j] != 0
    return flat, row, column, share_y, share_x, found


def _neighbours(start: float, size: float, cells: int, ratio: int, length: int) -> tuple[Array, Array, Array]:
    """Returns both neighbours of each place in each cell [cells, 2 places]: element, weight, and the place's share."""
    _, _, share = samples_within(np.array([size], np.float64), cells, ratio)
    low, way, near = taps(float(start) + share[0] * float(size), length)
    pair = np.stack((low, np.minimum(low + 1, length - 1)), -1).reshape(cells, -1)
    weight = (np.stack((1 - way, way), -1) * near[..., None]).reshape(cells, -1)
    return pair, weight, np.repeat(share[0], 2, axis=-1)


@gradient("RegionPeaks")
def _(g: tuple[Value | None, ...], y: tuple[Value, ...], *inputs: Value, cells: Ints, ratio: int) -> tuple[None, ...]:
    return (None,) * len(inputs)  # which element is the largest changes in jumps only
