"""Pooling over windows of sequences [batch, channels, length], images [..., height, width] and volumes.

`stride` is by default the size of the window, so that windows do not overlap. A window that would reach past the end
is left out, as PyTorch leaves it out; pad or crop to have it.
"""

from backwire._builder._node import AttributeValue
from backwire._builder._shapes import Shape
from backwire._builder._spatial import Pair, Triple, each, require_spatial, windows
from backwire._builder._value import Value, apply


def max_pool1d(x: Value, size: int, *, stride: int | None = None, padding: int = 0, dilation: int = 1) -> Value:
    """Returns the greatest element of each window: [batch, channels, length] becomes [batch, channels, length'].

    Padding never wins; with `dilation` the elements of a window lie that far apart.

    Example:
        >>> sequences = bw.input("sequences", ("batch", 8, 100))
        >>> bw.max_pool1d(sequences, 3, stride=2)
        <MaxPool: float32[batch, 8, 49]>
    """
    return _pool("MaxPool", x, 1, size, stride, padding, dilation, {})


def max_pool2d(x: Value, size: Pair, *, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1) -> Value:
    """Returns the greatest element of each window: [batch, channels, height, width] becomes [..., height', width'].

    Padding never wins; with `dilation` the elements of a window lie that far apart.

    Example:
        >>> images = bw.input("images", ("batch", 8, 28, 28))
        >>> bw.max_pool2d(images, 2)
        <MaxPool: float32[batch, 8, 14, 14]>
    """
    return _pool("MaxPool", x, 2, size, stride, padding, dilation, {})


def max_pool3d(
    x: Value, size: Triple, *, stride: Triple | None = None, padding: Triple = 0, dilation: Triple = 1
) -> Value:
    """Returns the greatest element of each window of volumes [batch, channels, depth, height, width].

    Padding never wins; with `dilation` the elements of a window lie that far apart.

    Example:
        >>> scans = bw.input("scans", ("batch", 1, 32, 32, 32))
        >>> bw.max_pool3d(scans, (1, 2, 2))
        <MaxPool: float32[batch, 1, 32, 16, 16]>
    """
    return _pool("MaxPool", x, 3, size, stride, padding, dilation, {})


def average_pool1d(
    x: Value, size: int, *, stride: int | None = None, padding: int = 0, count_padding: bool = False
) -> Value:
    """Returns the mean of each window: [batch, channels, length] becomes [batch, channels, length'].

    With `count_padding` the zeros of the padding take part in the mean; without, only elements of `x` do.

    Example:
        >>> sequences = bw.input("sequences", ("batch", 8, 100))
        >>> bw.average_pool1d(sequences, 4)
        <AveragePool: float32[batch, 8, 25]>
    """
    return _pool("AveragePool", x, 1, size, stride, padding, 1, {"count_include_pad": int(count_padding)})


def average_pool2d(
    x: Value, size: Pair, *, stride: Pair | None = None, padding: Pair = 0, count_padding: bool = False
) -> Value:
    """Returns the mean of each window: [batch, channels, height, width] becomes [..., height', width'].

    With `count_padding` the zeros of the padding take part in the mean; without, only elements of `x` do.

    Example:
        >>> images = bw.input("images", ("batch", 8, 28, 28))
        >>> bw.average_pool2d(images, 3, stride=2, padding=1)
        <AveragePool: float32[batch, 8, 14, 14]>
    """
    return _pool("AveragePool", x, 2, size, stride, padding, 1, {"count_include_pad": int(count_padding)})


def average_pool3d(
    x: Value, size: Triple, *, stride: Triple | None = None, padding: Triple = 0, count_padding: bool = False
) -> Value:
    """Returns the mean of each window of volumes [batch, channels, depth, height, width].

    With `count_padding` the zeros of the padding take part in the mean; without, only elements of `x` do.

    Example:
        >>> scans = bw.input("scans", ("batch", 1, 32, 32, 32))
        >>> bw.average_pool3d(scans, 2)
        <AveragePool: float32[batch, 1, 16, 16, 16]>
    """
    return _pool("AveragePool", x, 3, size, stride, padding, 1, {"count_include_pad": int(count_padding)})


def _pool(
    op: str,
    x: Value,
    axes: int,
    size: Triple | Pair,
    stride: Triple | Pair | None,
    padding: Triple | Pair,
    dilation: Triple | Pair,
    attributes: dict[str, AttributeValue],
) -> Value:
    require_spatial(op, x, axes)
    kernel = each(size, axes, "size")
    steps = kernel if stride is None else each(stride, axes, "stride")
    pads = each(padding, axes, "padding", least=0)
    gaps = each(dilation, axes, "dilation")
    shape: Shape = None
    if x.shape is not None:
        spatial = windows(op, x.shape[2:], kernel, steps, gaps, [(pad, pad) for pad in pads])
        shape = (*x.shape[:2], *spatial)
    settings = {"kernel_shape": kernel, "strides": steps, "pads": [*pads, *pads], "dilations": gaps, **attributes}
    return apply(op, [x], x.dtype, shape, attributes=settings)
