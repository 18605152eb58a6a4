"""Where the largest products of elements and weights are: computed on the host."""

import numpy as np
from jax import Array

from backwire_server.engine.ops.region_peaks import region_peaks
from backwire_server.xla.host import on_host
from backwire_server.xla.ops.region_sampling import check_samples, image_indices
from backwire_server.xla.registry import kernel

Ints = tuple[int, ...]


@kernel("RegionPeaks")
def peaks(x: Array, *regions: Array, cells: Ints, ratio: int) -> tuple[Array, ...]:
    """Six things about the largest product in each cell"""
    _, size_y, _, size_x, batch = regions
    check_samples(size_y, cells[0], ratio)
    check_samples(size_x, cells[1], ratio)
    image_indices(batch, x.shape[0])
    shape = (batch.shape[0], x.shape[1], *cells)
    kinds = (np.int64, np.int64, np.int64, x.dtype, x.dtype, np.bool_)
    return on_host(region_peaks, tuple(np.zeros(shape, kind) for kind in kinds), x, *regions, cells=cells, ratio=ratio)
