"""Where the largest elements of regions are."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.xla.ops.region_sampling import image_indices
from backwire_server.xla.registry import kernel


@kernel("RegionMaxima")
def region_maxima(x: Array, rois: Array, *, pooled_shape: tuple[int, int], spatial_scale: float) -> Array:
    """Where in x, in C order, the largest element of each cell is; -1 for an empty cell"""
    images, channels, height, width = x.shape
    image = image_indices(rois[:, 0], images)
    bounds = jnp.floor(rois[:, 1:].astype(jnp.float64) * spatial_scale + 0.5).astype(jnp.int64)
    rows = _within(bounds[:, 1], bounds[:, 3], pooled_shape[0], height)
    columns = _within(bounds[:, 0], bounds[:, 2], pooled_shape[1], width)

    def search(region: tuple[Array, Array, Array]) -> Array:
        at, in_row, in_column = region
        plane = x[at]
        best = _largest(plane[:, :, None, :], in_column).swapaxes(1, 2)[:, None]  # of each row, in each cell's columns
        largest = _largest(best, in_row[:, None])[..., None]
        row = _first(in_row[:, None] & ~(best < largest))
        column = _first(in_column & ~(plane[np.arange(channels)[:, None, None], row] < largest))
        flat = ((at * channels + np.arange(channels)[:, None, None]) * height + row) * width + column
        return jnp.where(in_row.any(1)[:, None] & in_column.any(1), flat, -1)

    return lax.map(search, (image, rows, columns))


def _within(first: Array, last: Array, count: int, size: int) -> Array:
    """Returns which elements of an axis are in each of the cells that first to last are cut into."""
    length, place, at = jnp.maximum(last - first + 1, 1)[:, None], np.arange(count), np.arange(size)
    begin = first[:, None] + place * length // count
    end = first[:, None] - (-(place + 1) * length // count)
    return (begin[..., None] <= at) & (at < end[..., None])


def _largest(x: Array, among: Array) -> Array:
    return jnp.max(x, -1, where=among, initial=-jnp.inf)


def _first(hits: Array) -> Array:
    return jnp.argmax(hits, -1).astype(jnp.int64)
