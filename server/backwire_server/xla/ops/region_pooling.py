"""Where the largest elements of regions are: computed on the host."""

import numpy as np
from jax import Array

from backwire_server.engine.ops.region_pooling import region_maxima
from backwire_server.xla.host import on_host
from backwire_server.xla.ops.region_sampling import image_indices
from backwire_server.xla.registry import kernel


@kernel("RegionMaxima")
def maxima(x: Array, rois: Array, *, pooled_shape: tuple[int, ...], spatial_scale: float) -> Array:
    """Where in x, in C order, the largest element of each cell is; -1 for an empty cell"""
    image_indices(rois[:, 0], x.shape[0])
    places = np.zeros((rois.shape[0], x.shape[1], *pooled_shape), np.int64)
    (found,) = on_host(region_maxima, (places,), x, rois, pooled_shape=pooled_shape, spatial_scale=spatial_scale)
    return found
