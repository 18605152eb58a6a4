"""Operators on images and caches that are made of scatters, products and the adjoint of convolution."""

from math import prod

import numpy as np

from backwire_server.engine.dims import concrete
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axis_of, require, require_equal, require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import window_of

Ints = tuple[int, ...]


@function(
    "Col2Im",
    samples=[
        case(F(1, 4, 6), I(3, 4), I(2, 2)),
        case(F(2, 4, 3), I(5), I(2), strides=(2,), pads=(1, 1), dilations=(1,)),
        case(F(1, 4, 4), I(4, 4), I(2, 2), dilations=(2, 2)),
    ],
)
def col2im(
    x: Value,
    image_shape: Value,
    block_shape: Value,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """Blocks x [N, C * block elements, L] added up in images [N, C, *image_shape], in C order of their places."""
    require_rank(x, 3, 3)
    sizes, block = tuple(image_shape.known.tolist()), tuple(block_shape.known.tolist())
    window = window_of(sizes, block, strides, pads, dilations)
    outputs, count = concrete(window.output_sizes(sizes)), int(np.prod(block))
    channels = int(x.shape[1])
    if channels % count:
        raise ShapeMismatch(f"{channels} is not a whole number of blocks of {list(block)}")
    require_equal(x.shape[2], int(np.prod(outputs)), "the blocks given and the places for them")
    x.builder.make(count * count)
    pick = x.builder.constant(np.eye(count, dtype=x.dtype).reshape(count, 1, *block))
    image = O.ConvolutionInputGradient(
        O.Reshape(x, [-1, count, *outputs]),
        pick,
        sizes=sizes,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        group=1,
    )
    return O.Reshape(image, [-1, channels // count, *sizes])


@function(
    "AffineGrid",
    samples=[case(F(2, 2, 3), I(2, 1, 3, 4)), case(F(1, 3, 4), I(1, 2, 2, 3, 2), align_corners=1)],
)
def affine_grid(theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    """The positions [N, *spatial, 2 or 3] where theta [N, 2, 3] or [N, 3, 4] puts an evenly spaced grid on [-1, 1].

    `size` is [N, C, H, W] or [N, C, D, H, W]; positions begin with that along W. With `align_corners`, -1 and 1 are
    the centres of the outermost elements, otherwise their edges.
    """
    require_rank(theta, 3, 3)
    spatial = size.known.tolist()[2:]
    require_equal(theta.shape[1], len(spatial), "rows of theta and spatial axes")
    require_equal(theta.shape[2], len(spatial) + 1, "columns of theta and spatial axes, plus one")
    theta.builder.make(prod(max(n, 1) for n in spatial) * (len(spatial) + 1))
    lines = [np.linspace(-1, 1, n) if align_corners else (2 * np.arange(n) + 1) / n - 1 for n in spatial]
    axes = np.meshgrid(*lines, indexing="ij")[::-1]
    points = np.stack([*axes, np.ones(spatial)], -1).reshape(-1, len(spatial) + 1)
    grid = theta.builder.constant(points.astype(theta.dtype)) @ O.Transpose(theta, perm=(0, 2, 1))
    return O.Reshape(grid, [-1, *spatial, len(spatial)])


@function(
    "TensorScatter",
    samples=[
        case(F(2, 4, 3), F(2, 2, 3), I(0, 1)),
        case(F(2, 4), F(2, 3), I(3, 1), axis=1, mode="circular"),
        case(F(1, 3, 2), F(1, 2, 2)),
    ],
)
def tensor_scatter(
    past_cache: Value, update: Value, write_indices: Value | None = None, *, axis: int = -2, mode: str = "linear"
) -> Value:
    """The cache [batch, ...] with the update written from `write_indices[batch]` on along the axis.

    In the mode circular, what goes beyond the end is written at the beginning.
    """
    if mode not in ("linear", "circular"):
        raise InvalidAttribute(f"mode is {mode!r}; use linear or circular")
    require_rank(update, past_cache.rank, past_cache.rank)
    at = axis_of(axis, past_cache.rank)
    steps = np.arange(update.builder.make(int(update.shape[at]))).reshape(
        [-1 if place == at else 1 for place in range(update.rank)]
    )
    places = update.builder.constant(steps)
    if write_indices is not None:
        require(write_indices, "i")
        first = O.Cast(write_indices, to="int64")
        places = O.Unsqueeze(first, list(range(1, update.rank))) + places
    if mode == "circular":
        places = O.Mod(places, int(past_cache.shape[at]))
    return O.ScatterElements(past_cache, O.Expand(places, list(update.shape)), update, axis=at)
