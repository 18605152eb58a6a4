"""Pooling whose windows follow from the result: one for each channel (global), or as many as are asked for (adaptive).

The windows of adaptive pooling cover each axis evenly: the i-th of n begins at ⌊i·size / n⌋ and ends before
⌈(i + 1)·size / n⌉, as in PyTorch, so that they may overlap. Sizes must be known.
"""

import numpy as np

from backwire._builder import _functions_reduction, _functions_shape
from backwire._builder._shapes import Shape
from backwire._builder._spatial import Pair, Triple, each, require_channels, require_spatial
from backwire._builder._value import Value, apply, as_constant, gather, matmul
from backwire._errors import ShapeError


def global_average_pool(x: Value) -> Value:
    """Returns the mean of each channel: [batch, channels, *spatial] becomes [batch, channels, 1, ...].

    Example:
        >>> images = bw.input("images", ("batch", 8, 7, 7))
        >>> bw.flatten(bw.global_average_pool(images))
        <Flatten: float32[batch, 8]>
    """
    return _global("GlobalAveragePool", x)


def global_max_pool(x: Value) -> Value:
    """Returns the greatest element of each channel: [batch, channels, *spatial] becomes [batch, channels, 1, ...].

    Example:
        >>> sequences = bw.input("sequences", ("batch", 8, 100))
        >>> bw.global_max_pool(sequences)
        <GlobalMaxPool: float32[batch, 8, 1]>
    """
    return _global("GlobalMaxPool", x)


def adaptive_average_pool1d(x: Value, size: int) -> Value:
    """Returns `size` means along the length: [batch, channels, length] becomes [batch, channels, size].

    Example:
        >>> sequences = bw.input("sequences", ("batch", 8, 100))
        >>> bw.adaptive_average_pool1d(sequences, 7).shape
        ('batch', 8, 7)
    """
    return _adaptive_average(x, each(size, 1, "size"))


def adaptive_average_pool2d(x: Value, size: Pair) -> Value:
    """Returns means of regions of images: [batch, channels, height, width] becomes [batch, channels, *size].

    Example:
        >>> images = bw.input("images", ("batch", 8, 13, 17))
        >>> bw.adaptive_average_pool2d(images, (3, 4)).shape
        ('batch', 8, 3, 4)
    """
    return _adaptive_average(x, each(size, 2, "size"))


def adaptive_average_pool3d(x: Value, size: Triple) -> Value:
    """Returns means of regions of volumes: [batch, channels, depth, height, width] becomes [batch, channels, *size].

    Example:
        >>> scans = bw.input("scans", ("batch", 1, 32, 30, 28))
        >>> bw.adaptive_average_pool3d(scans, 4).shape
        ('batch', 1, 4, 4, 4)
    """
    return _adaptive_average(x, each(size, 3, "size"))


def adaptive_max_pool1d(x: Value, size: int) -> Value:
    """Returns `size` greatest elements along the length: [batch, channels, length] becomes [batch, channels, size].

    Example:
        >>> sequences = bw.input("sequences", ("batch", 8, 100))
        >>> bw.adaptive_max_pool1d(sequences, 7).shape
        ('batch', 8, 7)
    """
    return _adaptive_max(x, each(size, 1, "size"))


def adaptive_max_pool2d(x: Value, size: Pair) -> Value:
    """Returns the greatest elements of regions: [batch, channels, height, width] becomes [batch, channels, *size].

    Example:
        >>> images = bw.input("images", ("batch", 8, 13, 17))
        >>> bw.adaptive_max_pool2d(images, (3, 4)).shape
        ('batch', 8, 3, 4)
    """
    return _adaptive_max(x, each(size, 2, "size"))


def adaptive_max_pool3d(x: Value, size: Triple) -> Value:
    """Returns the greatest elements of regions of volumes [batch, channels, depth, height, width], `size` of them.

    Example:
        >>> scans = bw.input("scans", ("batch", 1, 32, 30, 28))
        >>> bw.adaptive_max_pool3d(scans, 4).shape
        ('batch', 1, 4, 4, 4)
    """
    return _adaptive_max(x, each(size, 3, "size"))


def _global(op: str, x: Value) -> Value:
    axes = require_channels(op, x)
    shape: Shape = (*(x.shape or ())[:2], *[1] * axes)
    return apply(op, [x], x.dtype, shape)


def _adaptive_average(x: Value, sizes: list[int]) -> Value:
    """A mean over a box is the mean of means along its axes: one product with a matrix of weights for each axis."""
    require_spatial("adaptive average pooling", x, len(sizes))
    for axis, wanted in enumerate(sizes, start=2):
        size = _known(x, axis)
        weights = np.zeros((size, wanted))
        for column, (start, end) in enumerate(_windows(size, wanted)):
            weights[start:end, column] = 1 / (end - start)
        x = _along(x, axis, as_constant(weights, x.dtype))
    return x


def _along(x: Value, axis: int, weights: Value) -> Value:
    rank = len(x.shape or ())
    if axis == rank - 1:
        return matmul(x, weights)
    order = [*range(axis), *range(axis + 1, rank), axis]
    moved = matmul(_functions_shape.transpose(x, order), weights)
    return _functions_shape.transpose(moved, [order.index(place) for place in range(rank)])


def _adaptive_max(x: Value, sizes: list[int]) -> Value:
    """A maximum over a box is the maximum of maxima along its axes; shorter windows see their last element twice."""
    require_spatial("adaptive max pooling", x, len(sizes))
    for axis, wanted in enumerate(sizes, start=2):
        bounds = _windows(_known(x, axis), wanted)
        longest = max(end - start for start, end in bounds)
        places = [[min(start + step, end - 1) for step in range(longest)] for start, end in bounds]
        x = _functions_reduction.max(gather(x, np.asarray(places), axis), axis + 1)
    return x


def _windows(size: int, wanted: int) -> list[tuple[int, int]]:
    return [(place * size // wanted, -(-(place + 1) * size // wanted)) for place in range(wanted)]


def _known(x: Value, axis: int) -> int:
    size = (x.shape or ())[axis]
    if not isinstance(size, int) or size < 1:
        raise ShapeError(f"adaptive pooling: axis {axis} of {x!r} decides the windows; declare it as a number above 0")
    return size
