"""Transposed convolution layers for sequences, images and volumes.

Their parameters are `name/weight`, by default `HeUniform()`, and `name/bias` [filters], by default `Zeros()`. Stride,
padding, dilation and groups are those of `bw.conv_transpose`.
"""

from backwire._builder import _functions_nn
from backwire._builder._initializers import Initializer
from backwire._builder._layers_convolution import weights
from backwire._builder._spatial import Pair, Triple
from backwire._builder._value import Value


def conv_transpose1d(
    x: Value,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns the sequences spread by kernels: [batch, channels, length] becomes [batch, filters, length'].

    Its parameters are `name/weight` [channels, filters / groups, kernel], by default `HeUniform()`, and `name/bias`
    [filters], by default `Zeros()`. The other arguments, and length', are those of `bw.conv_transpose`.

    Example:
        >>> codes = bw.input("codes", ("batch", 16, 25))
        >>> bw.conv_transpose1d(codes, 8, 4, name="up", stride=2, padding=1)
        <up/ConvTranspose: float32[batch, 8, 50]>
    """
    weight, bias = weights(
        "conv_transpose1d", name, x, 1, 1, filters, kernel_size, groups, use_bias, initializer, bias_initializer
    )
    return _functions_nn.conv_transpose(
        *(x, weight, bias),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        scope=name,
    )


def conv_transpose2d(
    x: Value,
    filters: int,
    kernel_size: Pair,
    *,
    name: str,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns the images spread by kernels: [batch, channels, height, width] becomes [batch, filters, height', width'].

    Its parameters are `name/weight` [channels, filters / groups, height, width], by default `HeUniform()`, and
    `name/bias` [filters], by default `Zeros()`. The other arguments, and the sizes, are those of `bw.conv_transpose`.

    Example:
        >>> codes = bw.input("codes", ("batch", 16, 7, 7))
        >>> bw.conv_transpose2d(codes, 8, 4, name="up", stride=2, padding=1)
        <up/ConvTranspose: float32[batch, 8, 14, 14]>
    """
    weight, bias = weights(
        "conv_transpose2d", name, x, 2, 1, filters, kernel_size, groups, use_bias, initializer, bias_initializer
    )
    return _functions_nn.conv_transpose(
        *(x, weight, bias),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        scope=name,
    )


def conv_transpose3d(
    x: Value,
    filters: int,
    kernel_size: Triple,
    *,
    name: str,
    stride: Triple = 1,
    padding: Triple = 0,
    output_padding: Triple = 0,
    dilation: Triple = 1,
    groups: int = 1,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns the volumes spread by kernels: [batch, channels, depth, height, width] becomes [batch, filters, ...].

    Its parameters are `name/weight` [channels, filters / groups, depth, height, width], by default `HeUniform()`, and
    `name/bias` [filters], by default `Zeros()`. The other arguments, and the sizes, are those of `bw.conv_transpose`.

    Example:
        >>> codes = bw.input("codes", ("batch", 16, 4, 4, 4))
        >>> bw.conv_transpose3d(codes, 8, 2, name="up", stride=2)
        <up/ConvTranspose: float32[batch, 8, 8, 8, 8]>
    """
    weight, bias = weights(
        "conv_transpose3d", name, x, 3, 1, filters, kernel_size, groups, use_bias, initializer, bias_initializer
    )
    return _functions_nn.conv_transpose(
        *(x, weight, bias),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        scope=name,
    )
