"""What RoiAlign is made of: the weights of elements along an axis, and the form that they and an image make."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.engine.ops.region_sampling import MOST_SAMPLES, region_weights
from backwire_server.xla.host import on_host
from backwire_server.xla.registry import kernel, refuse

Ints = tuple[int, ...]
FORMS = ("rchw,rph,rqw->rcpq", "rcpq,rph,rqw->rchw", "rcpq,rchw,rqw->rph", "rcpq,rchw,rph->rqw")


@kernel("RegionWeights")
def weights(start: Array, size: Array, *, cells: int, ratio: int, length: int) -> tuple[Array, ...]:
    """The mean weight [regions, cells, length] of each element in each cell, and its slopes by start and size."""
    check_samples(size, cells, ratio)
    results = (np.zeros((start.shape[0], cells, length), start.dtype),) * 3
    return on_host(region_weights, results, start, size, cells=cells, ratio=ratio, length=length)


def check_samples(size: Array, cells: int, ratio: int) -> None:
    """Refuses regions in which a cell has too many places where it is interpolated."""
    wide = size.astype(jnp.float64)
    counts = jnp.full_like(wide, ratio) if ratio else jnp.ceil(jnp.nan_to_num(jnp.maximum(wide, 0)) / cells)
    refuse(
        counts > MOST_SAMPLES,
        counts,
        lambda count: (
            f"a cell is interpolated at {count:.0f} places along an axis, but {MOST_SAMPLES} is the most; clip the "
            "regions to the image, or give a smaller sampling_ratio"
        ),
    )


def image_indices(batch: Array, images: int) -> Array:
    """Returns the indices of images; one outside is refused, and then taken as inside."""
    refuse(
        (batch < 0) | (batch >= images),
        batch,
        lambda number: f"a region is in image {number}, but there are {images}; number them from 0",
    )
    return jnp.clip(batch, 0, max(images - 1, 0)).astype(jnp.int64)


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
