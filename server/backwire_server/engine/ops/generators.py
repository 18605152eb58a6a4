"""Random generators, made of the session's own uniform numbers.

What they draw is a function of the session's seed, the number of passes made in training and the node's first output
alone; in eval mode it is what the next pass in training would draw. Their attribute `seed`, which in ONNX sets up a
generator that lives on between runs, is accepted and has no effect.
"""

import math
from typing import Any

import numpy as np

from backwire_server.engine.builder import Builder
from backwire_server.engine.differentiate import is_float
from backwire_server.engine.dims import Shape
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import DType
from backwire_server.engine.ops.logic import dtype_named
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require, require_rank
from backwire_server.engine.values import O, Value

Ints = tuple[int, ...]
SINGLE = np.dtype(np.float32)


def _float_dtype(dtype: Any, otherwise: DType = SINGLE) -> DType:
    found = otherwise if dtype is None else dtype_named(dtype)
    if not is_float(found):
        raise InvalidAttribute(f"dtype is {found.name}; random numbers are floating-point, so name such a type")
    return found


def _drawn_in(dtype: DType) -> DType:
    """Returns the type to draw in: half precision is rounded from float32."""
    return dtype if dtype == np.float64 else SINGLE


def _uniform(builder: Builder, shape: Shape, dtype: DType, low: float, high: float) -> Value:
    if not low <= high:
        raise InvalidAttribute(f"low is {low} and high is {high}; low must not be above high")
    drawn = builder.uniform(shape, _drawn_in(dtype)) * (high - low) + low
    return drawn if drawn.dtype == dtype else O.Cast(drawn, to=dtype.name)


def _normal(builder: Builder, shape: Shape, dtype: DType, mean: float, scale: float) -> Value:
    """Returns normal numbers by the method of Box and Muller (1958)."""
    if scale < 0:
        raise InvalidAttribute(f"scale is {scale}, but a standard deviation is not negative")
    drawn = _drawn_in(dtype)
    radius = O.Sqrt(O.Log(1.0 - builder.uniform(shape, drawn)) * -2.0)
    made = radius * O.Cos(builder.uniform(shape, drawn) * (2.0 * math.pi)) * scale + mean
    return made if made.dtype == dtype else O.Cast(made, to=dtype.name)


def _checked(shape: Ints) -> Ints:
    if min(shape, default=0) < 0:
        raise InvalidAttribute(f"shape is {list(shape)}; its entries must be at least 0")
    return shape


@function("RandomUniform", samples=[case(shape=(2, 3)), case(shape=(4,), dtype="float64", low=-1.0, high=3.0)])
def random_uniform(
    *, builder: Builder, shape: Ints, dtype: Any = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Value:
    """Random numbers of the shape, uniform on [low, high); float32 unless `dtype` says another floating-point type.

    They follow from the session's seed and the number of the pass; the attribute `seed` has no effect.
    """
    return _uniform(builder, _checked(shape), _float_dtype(dtype), low, high)


@function("RandomUniformLike", samples=[case(F(2, 3)), case(I(1, 2), dtype="float64", low=2.0, high=3.0)])
def random_uniform_like(
    x: Value, *, dtype: Any = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Value:
    """Random numbers of the shape of x, and of its type if `dtype` says no other, uniform on [low, high).

    They follow from the session's seed and the number of the pass; the attribute `seed` has no effect.
    """
    return _uniform(x.builder, x.shape, _float_dtype(dtype, x.dtype), low, high)


@function("RandomNormal", samples=[case(shape=(2, 3)), case(shape=(4,), dtype="float64", mean=-1.0, scale=3.0)])
def random_normal(
    *,
    builder: Builder,
    shape: Ints,
    dtype: Any = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Value:
    """Normal random numbers of that mean and standard deviation; float32 unless `dtype` says another float type.

    They follow from the session's seed and the number of the pass; the attribute `seed` has no effect.
    """
    return _normal(builder, _checked(shape), _float_dtype(dtype), mean, scale)


@function("RandomNormalLike", samples=[case(F(2, 3)), case(I(1, 2), dtype="float64", mean=-1.0, scale=3.0)])
def random_normal_like(
    x: Value, *, dtype: Any = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Value:
    """Normal random numbers of the shape of x, of that mean and standard deviation, of x's type or that of `dtype`.

    They follow from the session's seed and the number of the pass; the attribute `seed` has no effect.
    """
    return _normal(x.builder, x.shape, _float_dtype(dtype, x.dtype), mean, scale)


@function("Bernoulli", samples=[case(F(2, 3, low=0.1, high=0.9)), case(F(2, 3, low=0.1, high=0.9), dtype="bool")])
def bernoulli(x: Value, *, dtype: Any = None, seed: float | None = None) -> Value:
    """1 with the probability x, else 0, for each element; of x's type if `dtype` says no other. No gradient flows.

    The draws follow from the session's seed and the number of the pass; the attribute `seed` has no effect.
    """
    require(x, "f")
    to = x.dtype if dtype is None else dtype_named(dtype)
    drawn = _drawn_in(x.dtype)
    chance = x if x.dtype == drawn else O.Cast(x, to=drawn.name)
    return O.Cast(x.builder.uniform(x.shape, drawn) < chance, to=to.name)


@function("Multinomial", samples=[case(F(2, 3)), case(F(2, 3), sample_size=4, dtype="int64")])
def multinomial(x: Value, *, dtype: Any = None, sample_size: int = 1, seed: float | None = None) -> Value:
    """Classes drawn `sample_size` times for each row of x [batch, classes], with the probabilities Softmax(x).

    They are int32, or int64 by `dtype`. The draws follow from the session's seed and the number of the pass; the
    attribute `seed` has no effect.
    """
    require(x, "f")
    require_rank(x, 2, 2)
    to = np.dtype(np.int32) if dtype is None else dtype_named(dtype)
    if to not in (np.int32, np.int64):
        raise InvalidAttribute(f"dtype is {to.name}; classes are int32 or int64")
    if sample_size < 1:
        raise InvalidAttribute(f"sample_size is {sample_size}; draw at least one sample")
    classes = int(x.shape[1])
    if not classes:
        raise ShapeMismatch("there are no classes to draw from; give x [batch, classes] at least one")
    drawn = _drawn_in(x.dtype)
    logits = x if x.dtype == drawn else O.Cast(x, to=drawn.name)
    steps = O.CumSum(O.Softmax(logits, axis=1), np.array(1))
    level = x.builder.uniform((x.shape[0], sample_size), drawn) * O.Gather(steps, [classes - 1], axis=1)
    passed = O.LessOrEqual(O.Unsqueeze(steps, [1]), O.Unsqueeze(level, [2]))
    return O.Cast(O.ReduceSum(O.Cast(passed, to="int64"), [2], keepdims=0), to=to.name)
