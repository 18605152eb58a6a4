"""Layers: functions that declare their own parameters. Two layers of one name in a graph are an error."""

from backwire import _functions_nn, _shapes
from backwire._declare import parameter
from backwire._errors import ShapeError
from backwire._functions_nn import Pair
from backwire._initializers import GlorotUniform, HeUniform, Initializer, Normal, Zeros
from backwire._value import Value, apply, gather, require_float


def dense(
    x: Value,
    units: int,
    *,
    name: str,
    use_bias: bool = True,
    initializer: Initializer | None = None,
    bias_initializer: Initializer | None = None,
) -> Value:
    """Returns `x @ weight + bias` along the last axis: [..., features] becomes [..., units].

    Its parameters are `name/weight` [features, units], by default `GlorotUniform()`, and `name/bias` [units], by
    default `Zeros()`.

    Example:
        >>> x = bw.input("x", ("batch", 64))
        >>> bw.dense(x, 128, name="hidden")
        <hidden/Gemm: float32[batch, 128]>
    """
    require_float(f"dense {name!r}", x)
    features = known_size(f"dense {name!r}", x, -1)
    weight = parameter(f"{name}/weight", (features, units), initializer=initializer or GlorotUniform(), dtype=x.dtype)
    shape = (*(x.shape or ())[:-1], units)
    if not use_bias:
        return apply("MatMul", [x, weight], x.dtype, shape, scope=name)
    bias = parameter(f"{name}/bias", (units,), initializer=bias_initializer or Zeros(), dtype=x.dtype)
    if len(shape) == 2:
        return apply("Gemm", [x, weight, bias], x.dtype, shape, scope=name)
    return apply("Add", [apply("MatMul", [x, weight], x.dtype, shape, scope=name), bias], x.dtype, shape, scope=name)


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
    require_float(f"conv2d {name!r}", x)
    if x.shape is None or len(x.shape) != 4:
        raise ShapeError(
            f"conv2d {name!r}: {x!r} is no batch of images; reshape it to [batch, channels, height, width]"
        )
    channels = known_size(f"conv2d {name!r}", x, 1)
    if groups < 1 or channels % groups or filters % groups:
        raise ShapeError(
            f"conv2d {name!r}: {channels} channels and {filters} filters must be multiples of groups={groups}"
        )
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    rule = initializer or HeUniform()
    size = (filters, channels // groups, *kernel)
    weight = parameter(f"{name}/weight", size, initializer=rule, unit_axis=0, dtype=x.dtype)
    bias = None
    if use_bias:
        bias = parameter(f"{name}/bias", (filters,), initializer=bias_initializer or Zeros(), dtype=x.dtype)
    return _functions_nn.conv(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, scope=name
    )


def embedding(indices: Value, count: int, size: int, *, name: str, initializer: Initializer | None = None) -> Value:
    """Returns a learned vector for every integer in `indices`: [...] becomes [..., size].

    Its parameter is `name/weight` [count, size], by default `Normal(standard_deviation=1)`. An index outside
    [-count, count) is an error of Forward.

    Example:
        >>> words = bw.input("words", ("batch", 20), "int64")
        >>> bw.embedding(words, 10_000, 64, name="meaning")
        <meaning/Gather: float32[batch, 20, 64]>
    """
    rule = initializer or Normal(standard_deviation=1.0)
    weight = parameter(f"{name}/weight", (count, size), initializer=rule, unit_axis=1)
    return gather(weight, indices, 0, scope=name)


def known_size(what: str, x: Value, axis: int) -> int:
    """Returns the size of an axis that sizes a parameter; raises ShapeError when it is not known or not there."""
    size = (x.shape or (None,))[axis] if _shapes.rank_of(what, x.shape) else None
    if not isinstance(size, int):
        raise ShapeError(
            f"{what}: axis {axis} of {x!r} sizes its weight, so it must be a number; declare or reshape it so"
        )
    return size
