"""Layers: functions that declare their own parameters. Two layers of one name in a graph are an error."""

from backwire._builder import _shapes
from backwire._builder._declare import parameter
from backwire._builder._initializers import Constant, GlorotUniform, Initializer, Normal, Zeros
from backwire._builder._value import Value, apply, gather, insert_axes, require_float, require_value
from backwire._errors import ShapeError


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


def embedding(indices: Value, count: int, size: int, *, name: str, initializer: Initializer | None = None) -> Value:
    """Returns a learned vector for every integer in `indices`: [...] becomes [..., size].

    Its parameter is `name/weight` [count, size], by default `Normal(standard_deviation=1)`. An index outside
    [0, count) is an error of Forward: unlike `bw.take`, an embedding does not count negative ones from the end.

    Example:
        >>> words = bw.input("words", ("batch", 20), "int64")
        >>> bw.embedding(words, 10_000, 64, name="meaning")
        <meaning/Gather: float32[batch, 20, 64]>
    """
    rule = initializer or Normal(standard_deviation=1.0)
    weight = parameter(f"{name}/weight", (count, size), initializer=rule, unit_axis=1)
    return gather(weight, indices, 0, from_end=False, scope=name)


def prelu(x: Value, *, name: str, initializer: Initializer | None = None) -> Value:
    """Returns x where it is positive, and a learned slope times x elsewhere (He et al. 2015).

    Its parameter is `name/slope` [channels], by default `Constant(0.25)`: a slope for each place of axis 1.

    Example:
        >>> images = bw.input("images", ("batch", 16, 8, 8))
        >>> bw.prelu(images, name="bent")
        <bent/PRelu: float32[batch, 16, 8, 8]>
    """
    what = f"prelu {name!r}"
    require_float(what, x)
    channels = known_size(what, x, 1)
    slope = parameter(f"{name}/slope", (channels,), initializer=initializer or Constant(0.25), dtype=x.dtype)
    after = list(range(1, len(x.shape or ()) - 1))
    return apply("PRelu", [x, insert_axes(slope, after) if after else slope], x.dtype, x.shape, scope=name)


def known_size(what: str, x: Value, axis: int) -> int:
    """Returns the size of an axis that sizes a parameter; raises ShapeError when it is not known or not there."""
    require_value(what, x)
    size = (x.shape or (None,))[axis] if _shapes.rank_of(what, x.shape) else None
    if not isinstance(size, int):
        raise ShapeError(
            f"{what}: axis {axis} of {x!r} sizes its weight, so it must be a number; declare or reshape it so"
        )
    return size
