"""The mode max of RoiAlign: where the largest products of elements and weights are."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.xla.ops.region_sampling import image_indices, sample_counts, share_of, taps
from backwire_server.xla.registry import kernel

Neighbour = tuple[Array, Array, Array, Array]


def _neighbours(start: Array, size: Array, counts: Array, cells: int, length: int) -> Callable[[Array], Neighbour]:
    """Returns what tells of a number the neighbour that has it in each cell of each region.

    That is its element, its weight and the share of its place [regions, cells], and which regions have so many. Each
    place has two neighbours.
    """
    first, extent = (each.astype(jnp.float64)[:, None] for each in (start, size))

    def neighbour(number: Array) -> Neighbour:
        place, after = number // 2, number % 2 == 1
        share = share_of(place, counts, cells)
        low, way, near = taps(first + share * extent, length)
        element = jnp.where(after, jnp.minimum(low + 1, length - 1), low)
        return element, jnp.where(after, way, 1 - way) * near, share, place < counts

    return neighbour


@kernel("RegionPeaks")
def region_peaks(
    x: Array,
    start_y: Array,
    size_y: Array,
    start_x: Array,
    size_x: Array,
    batch: Array,
    *,
    cells: tuple[int, int],
    ratio: int,
) -> tuple[Array, ...]:
    """Six things about the largest product in each cell"""
    images, channels, height, width = x.shape
    image, channel = image_indices(batch, images)[:, None, None, None], np.arange(channels)[:, None, None]
    counts = [
        sample_counts(size.astype(jnp.float64), n, ratio) for size, n in zip((size_y, size_x), cells, strict=True)
    ]
    by_row = _neighbours(start_y, size_y, counts[0], cells[0], height)
    by_column = _neighbours(start_x, size_x, counts[1], cells[1], width)
    last = [2 * jnp.max(each, initial=0) for each in counts]

    def visit(number: Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        row, row_weight, row_share, in_rows = by_row(number // last[1])
        column, column_weight, column_share, in_columns = by_column(number % last[1])
        row, row_weight, row_share = (each[:, None, :, None] for each in (row, row_weight, row_share))
        column, column_weight, column_share = (each[:, None, None, :] for each in (column, column_weight, column_share))
        weight = row_weight * column_weight
        product = x[image, channel, row, column] * weight
        seen, best, *told = state
        counted = (in_rows & in_columns)[:, None, None, None]
        larger = counted & (~seen | (product > best) | (jnp.isnan(product) & ~jnp.isnan(best)))
        new = (row, column, row_share, column_share, weight != 0)
        told = [jnp.where(larger, each, old) for each, old in zip(new, told, strict=True)]
        return seen | counted, jnp.where(larger, product, best), *told

    shape = (batch.shape[0], channels, *cells)
    zero = (jnp.zeros(shape, kind) for kind in (jnp.int64, jnp.int64, jnp.float64, jnp.float64, jnp.bool_))
    start = (jnp.zeros((batch.shape[0], 1, 1, 1), jnp.bool_), jnp.zeros(shape, jnp.float64), *zero)
    seen, _, row, column, share_y, share_x, found = lax.fori_loop(0, last[0] * last[1], visit, start)
    flat = jnp.where(seen, ((image * channels + channel) * height + row) * width + column, 0)
    return flat, row, column, share_y.astype(x.dtype), share_x.astype(x.dtype), found
