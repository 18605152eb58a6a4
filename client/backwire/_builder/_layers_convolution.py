"""Convolution layers for sequences, images and volumes.

Their parameters are `name/weight`, by default `HeUniform()`, and `name/bias` [filters], by default `Zeros()`. Stride,
padding, dilation and groups are those of `bw.conv`.
"""

from collections.abc import Sequence

from backwire._builder import _functions_nn
from backwire._builder._declare import parameter
from backwire._builder._initializers import HeUniform, Initializer, Zeros
from backwire._builder._layers import known_size
from backwire._builder._spatial import Pair, Triple, each, require_spatial
from backwire._builder._value import Value
from backwire._errors import ShapeError


def conv1d(
    x: Value,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns the sequences convolved: [batch, channels, length] becomes [batch, filters, length'].

    Its parameters are `name/weight` [filters, channels / groups, kernel], by default `HeUniform()`, and `name/bias`
    [filters], by default `Zeros()`. Stride, padding, dilation and groups are those of `bw.conv`.

    Example:
        >>> sound = bw.input("sound", ("batch", 1, 16000))
        >>> bw.conv1d(sound, 32, 400, name="first", stride=160)
        <first/Conv: float32[batch, 32, 98]>
    """
    weight, bias = weights(
        "conv1d", name, x, 1, 0, filters, kernel_size, groups, use_bias, initializer, bias_initializer
    )
    return _functions_nn.conv(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, scope=name
    )


def conv2d(
    x: Value,
    filters: int,
    kernel_size: Pair,
    *,
    name: str,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns the images convolved: [batch, channels, height, width] becomes [batch, filters, height', width'].

    Its parameters are `name/weight` [filters, channels / groups, height, width], by default `HeUniform()`, and
    `name/bias` [filters], by default `Zeros()`. Stride, padding, dilation and groups are those of `bw.conv`.

    Example:
        >>> images = bw.input("images", ("batch", 1, 28, 28))
        >>> bw.conv2d(images, 16, 3, name="first", padding="same")
        <first/Conv: float32[batch, 16, 28, 28]>
    """
    weight, bias = weights(
        "conv2d", name, x, 2, 0, filters, kernel_size, groups, use_bias, initializer, bias_initializer
    )
    return _functions_nn.conv(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, scope=name
    )


def conv3d(
    x: Value,
    filters: int,
    kernel_size: Triple,
    *,
    name: str,
    stride: Triple = 1,
    padding: Triple | str = 0,
    dilation: Triple = 1,
    groups: int = 1,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns the volumes convolved: [batch, channels, depth, height, width] becomes [batch, filters, depth', ...].

    Its parameters are `name/weight` [filters, channels / groups, depth, height, width], by default `HeUniform()`, and
    `name/bias` [filters], by default `Zeros()`. Stride, padding, dilation and groups are those of `bw.conv`.

    Example:
        >>> scans = bw.input("scans", ("batch", 1, 32, 32, 32))
        >>> bw.conv3d(scans, 8, 3, name="first", stride=2, padding=1)
        <first/Conv: float32[batch, 8, 16, 16, 16]>
    """
    weight, bias = weights(
        "conv3d", name, x, 3, 0, filters, kernel_size, groups, use_bias, initializer, bias_initializer
    )
    return _functions_nn.conv(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, scope=name
    )


def weights(
    layer: str,
    name: str,
    x: Value,
    axes: int,
    unit_axis: int,
    filters: int,
    kernel_size: int | Sequence[int],
    groups: int,
    use_bias: bool,
    initializer: Initializer | None,
    bias_initializer: Initializer | None,
) -> tuple[Value, Value | None]:
    """Declares the kernel, of so many spatial axes and with its filters along `unit_axis`, and the bias."""
    what = f"{layer} {name!r}"
    require_spatial(what, x, axes)
    channels = known_size(what, x, 1)
    if groups < 1 or channels % groups or filters % groups:
        raise ShapeError(f"{what}: {channels} channels and {filters} filters must be multiples of groups={groups}")
    ends = (channels, filters // groups) if unit_axis else (filters, channels // groups)
    size = (*ends, *each(kernel_size, axes, f"{what}: kernel_size"))
    rule = initializer or HeUniform()
    weight = parameter(f"{name}/weight", size, initializer=rule, unit_axis=unit_axis, dtype=x.dtype)
    if not use_bias:
        return weight, None
    return weight, parameter(f"{name}/bias", (filters,), initializer=bias_initializer or Zeros(), dtype=x.dtype)
