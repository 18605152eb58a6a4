"""What RoiAlign is made of: the weights of elements along an axis, and the form that they and an image make.

How many places a cell has depends on elements, so they are gone through in a loop of the compiled program.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from backwire_server.engine.ops.region_sampling import MOST_SAMPLES
from backwire_server.xla.registry import kernel, refuse

Ints = tuple[int, ...]
FORMS = ("rchw,rph,rqw->rcpq", "rcpq,rph,rqw->rchw", "rcpq,rchw,rqw->rph", "rcpq,rchw,rph->rqw")


def image_indices(batch: Array, images: int) -> Array:
    """Returns the indices of images; one outside is refused, and then taken as inside."""
    refuse(
        (batch < 0) | (batch >= images),
        batch,
        lambda number: f"a region is in image {number}, but there are {images}; number them from 0",
    )
    return jnp.clip(batch, 0, max(images - 1, 0)).astype(jnp.int64)


def sample_counts(size: Array, cells: int, ratio: int) -> Array:
    """Returns how many places a cell of each region has along an axis; more than may be are refused."""
    counts = jnp.full_like(size, ratio) if ratio else jnp.ceil(jnp.nan_to_num(jnp.maximum(size, 0)) / cells)
    refuse(
        counts > MOST_SAMPLES,
        counts,
        lambda count: (
            f"a cell is interpolated at {count:.0f} places along an axis, but {MOST_SAMPLES} is the most; clip the "
            "regions to the image, or give a smaller sampling_ratio"
        ),
    )
    return jnp.minimum(counts, MOST_SAMPLES).astype(jnp.int64)


def share_of(number: Array, counts: Array, cells: int) -> Array:
    """Returns where in each region the place of that number lies in each cell [regions, cells], from 0 to 1."""
    return (np.arange(cells) + ((number + 0.5) / jnp.maximum(counts, 1))[:, None]) / cells


def taps(at: Array, length: int) -> tuple[Array, Array, Array]:
    """Returns the element before each place in an axis of that length, the way from there, and which are near it."""
    near = (at >= -1) & (at <= length)
    inside = jnp.where(near, jnp.clip(at, 0, length - 1), 0)
    low = jnp.floor(inside).astype(jnp.int64)
    return low, inside - low, near


@kernel("RegionWeights")
def region_weights(start: Array, size: Array, *, cells: int, ratio: int, length: int) -> tuple[Array, ...]:
    """The mean weight [regions, cells, length] of each element in each cell, and its slopes by start and size."""
    first, extent = (each.astype(jnp.float64)[:, None] for each in (start, size))
    counts = sample_counts(extent[:, 0], cells, ratio)
    region, cell = np.arange(start.shape[0])[:, None], np.arange(cells)

    def visit(number: Array, results: tuple[Array, ...]) -> tuple[Array, ...]:
        share = share_of(number, counts, cells)
        at = first + share * extent
        low, way, near = taps(at, length)
        part = ((number < counts)[:, None] & near) / jnp.maximum(counts, 1)[:, None]
        slope = part * ((at > 0) & (at < length - 1))
        pairs = (part * (1 - way), part * way), (-slope, slope), (-slope * share, slope * share)
        high = jnp.minimum(low + 1, length - 1)
        return tuple(
            result.at[region, cell, low].add(before).at[region, cell, high].add(after)
            for result, (before, after) in zip(results, pairs, strict=True)
        )

    zeros = (jnp.zeros((start.shape[0], cells, length), jnp.float64),) * 3
    found = lax.fori_loop(0, jnp.max(counts, initial=0), visit, zeros)
    return tuple(each.astype(start.dtype) for each in found)


@kernel("RegionForm")
def region_form(a: Array, b: Array, c: Array, batch: Array, *, by: int, shape: Ints) -> Array:
    """The slope of the form sum y[r, c, p, q] x[batch r, c, h, w] rows[r, p, h] columns[r, q, w] by one of the four"""
    wide = jnp.float64 if a.dtype == jnp.float64 else jnp.float32
    operands: list[Any] = [each.astype(wide) for each in (a, b, c)]
    if by == 1:
        image = image_indices(batch, shape[0])
        return jnp.zeros(shape, wide).at[image].add(jnp.einsum(FORMS[by], *operands)).astype(a.dtype)
    at = min(by, 1)  # where the images are
    operands[at] = operands[at][image_indices(batch, operands[at].shape[0])]
    return jnp.einsum(FORMS[by], *operands).astype(a.dtype)
