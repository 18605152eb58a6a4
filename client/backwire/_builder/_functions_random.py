"""Random numbers that the server draws anew in every pass in training, named as in PyTorch.

They follow from the session's seed, the pass and the place in the graph, so that a run can be repeated; in eval mode
they are those that the next pass in training will draw. No gradient flows through a draw, but it does through what is
made of it: `mean + deviation * bw.randn_like(mean)`.
"""

from collections.abc import Sequence

from numpy.typing import DTypeLike

from backwire import _arrays
from backwire._arrays import INT64
from backwire._builder._functions_math import ONNX_TYPES
from backwire._builder._value import Value, apply, require_float
from backwire._errors import DTypeError, InvalidRequestError, ShapeError


def rand(shape: Sequence[int], dtype: DTypeLike = "float32") -> Value:
    """Returns random numbers of the shape, uniform on [0, 1).

    Example:
        >>> bw.rand((2, 3))
        <RandomUniform: float32[2, 3]>
    """
    return _drawn("RandomUniform", shape, dtype)


def randn(shape: Sequence[int], dtype: DTypeLike = "float32") -> Value:
    """Returns random numbers of the shape, normal with mean 0 and variance 1.

    Example:
        >>> bw.randn((2, 3), "float64")
        <RandomNormal: float64[2, 3]>
    """
    return _drawn("RandomNormal", shape, dtype)


def rand_like(x: Value) -> Value:
    """Returns random numbers of the shape and dtype of `x`, uniform on [0, 1).

    Example:
        >>> bw.rand_like(bw.input("x", ("batch", 3)))
        <RandomUniformLike: float32[batch, 3]>
    """
    require_float("RandomUniformLike", x)
    return apply("RandomUniformLike", [x], x.dtype, x.shape)


def randn_like(x: Value) -> Value:
    """Returns random numbers of the shape and dtype of `x`, normal with mean 0 and variance 1.

    Example:
        >>> mean, deviation = bw.input("mean", ("batch", 8)), bw.input("deviation", ("batch", 8))
        >>> mean + deviation * bw.randn_like(mean)
        <Add: float32[batch, 8]>
    """
    require_float("RandomNormalLike", x)
    return apply("RandomNormalLike", [x], x.dtype, x.shape)


def bernoulli(probability: Value) -> Value:
    """Returns 1 with the probability that each element says, and 0 otherwise, in its dtype.

    Example:
        >>> bw.bernoulli(bw.sigmoid(bw.input("x", ("batch", 3))))
        <Bernoulli: float32[batch, 3]>
    """
    require_float("Bernoulli", probability)
    return apply("Bernoulli", [probability], probability.dtype, probability.shape)


def multinomial(logits: Value, samples: int = 1) -> Value:
    """Returns int64 [batch, samples]: classes drawn for each row with the probabilities `bw.softmax(logits)`.

    Args:
        logits: [batch, classes]; for probabilities, pass their logarithms.
        samples: How many are drawn for each row, one after another from all classes.

    Example:
        >>> bw.multinomial(bw.input("logits", ("batch", 10)), samples=4)
        <Multinomial: int64[batch, 4]>
    """
    require_float("Multinomial", logits)
    if logits.shape is not None and len(logits.shape) != 2:
        raise ShapeError(f"Multinomial: {logits!r} must be [batch, classes]; reshape it")
    if samples < 1:
        raise InvalidRequestError(f"Multinomial: samples={samples}; draw at least one")
    batch = None if logits.shape is None else logits.shape[0]
    attributes = {"sample_size": samples, "dtype": ONNX_TYPES[INT64.name]}
    return apply("Multinomial", [logits], INT64, (batch, samples), attributes=attributes)


def _drawn(op: str, shape: Sequence[int], dtype: DTypeLike) -> Value:
    kind = _arrays.dtype_of(dtype)
    if not _arrays.is_float(kind):
        raise DTypeError(f"{op}: random numbers are floating-point, not {kind.name}; convert them with bw.cast")
    sizes = tuple(shape)
    if not all(map(_is_size, sizes)):
        raise ShapeError(f"{op}: {shape!r} is no shape of sizes; for sizes that vary, draw like a value that has them")
    return apply(op, [], kind, sizes, attributes={"shape": sizes, "dtype": ONNX_TYPES[kind.name]})


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size >= 0
