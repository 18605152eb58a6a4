"""Pooling made of other operators: by averages, by norms, and over whole planes; and MaxUnpool."""

from math import prod

import numpy as np

from backwire_server.engine.dims import product
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.ops.pooling import SAMPLES, geometry_of, sum_pooling
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import Window, window_of

Ints = tuple[int, ...]


@function(
    "AveragePool", samples=[*SAMPLES, case(F(1, 1, 4, 4), kernel_shape=(3, 3), pads=(1,) * 4, count_include_pad=1)]
)
def average_pool(
    x: Value,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """The mean of each window of x [N, C, d1, ...]; padding counts only when told so."""
    require_rank(x, 3)
    sizes = x.shape[2:]
    window = window_of(sizes, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    plain = window_of(sizes, kernel_shape, strides, pads, dilations, auto_pad)
    total = O.SumPooling(x, **geometry_of(window))
    if window.pads == plain.pads and (count_include_pad or not any(window.pads)):
        return total / float(np.prod(kernel_shape))
    extents = [int(size) for size in sizes]
    x.builder.make(prod(extents))
    ones = np.ones((1, 1, *extents), x.dtype)
    if count_include_pad:
        ones = plain.padded(ones, 1.0)
        grown = tuple(a - b for a, b in zip(window.pads, plain.pads, strict=True))
        window = Window(window.kernel, window.strides, grown, window.dilations)
    return total / x.builder.constant(sum_pooling(ones, **geometry_of(window)))


def _root(total: Value, p: int) -> Value:
    """Returns the p-th root of a sum of powers; its gradient is 0 where that is 0."""
    if p < 1:
        raise InvalidAttribute(f"p is {p}; it must be at least 1")
    empty = O.Equal(total, 0.0)
    return O.Where(empty, 0.0, O.Where(empty, 1.0, total) ** (1.0 / p))


@function(
    "LpPool",
    samples=[
        case(F(1, 2, 4, 4), kernel_shape=(2, 2), strides=(2, 2)),
        case(F(1, 1, 5), kernel_shape=(2,), pads=(1, 0), p=3, dilations=(2,)),
        case(F(1, 1, 5, low=0.2), kernel_shape=(2,), strides=(2,), p=1, ceil_mode=1),
    ],
)
def lp_pool(
    x: Value,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    p: int = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """The p-norm, (sum of |x|^p)^(1/p), of each window of x [N, C, d1, ...]."""
    require_rank(x, 3)
    window = window_of(x.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    total = O.SumPooling(O.Abs(x) ** float(p), **geometry_of(window))
    return _root(total, p)


@function("GlobalLpPool", samples=[case(F(2, 3, 4)), case(F(1, 2, 2, 3), p=3)])
def global_lp_pool(x: Value, *, p: int = 2) -> Value:
    """The p-norm over all spatial axes of x [N, C, d1, ...], which are kept with size 1."""
    require_rank(x, 3)
    return _root(O.ReduceSum(O.Abs(x) ** float(p), list(range(2, x.rank))), p)


@function("GlobalAveragePool", samples=[case(F(2, 3, 4, 2)), case(F(1, 2, 3))])
def global_average_pool(x: Value) -> Value:
    """The mean over all spatial axes of x [N, C, d1, ...], which are kept with size 1."""
    if x.rank < 3:
        raise ShapeMismatch("there are no spatial axes; x must be [N, C, d1, ...]")
    return O.ReduceMean(x, list(range(2, x.rank)), keepdims=1)


@function("GlobalMaxPool", samples=[case(F(2, 3, 4, 2)), case(F(1, 2, 3))])
def global_max_pool(x: Value) -> Value:
    """The largest element over all spatial axes of x [N, C, d1, ...], which are kept with size 1."""
    require_rank(x, 3)
    return O.ReduceMax(x, list(range(2, x.rank)))


@function(
    "MaxUnpool",
    samples=[
        case(F(1, 1, 2, 2), I([[[5, 7], [13, 15]]]), kernel_shape=(2, 2), strides=(2, 2)),
        case(F(1, 1, 2), I([[1, 3]]), I(1, 1, 5), kernel_shape=(2,), strides=(2,)),
    ],
)
def max_unpool(
    x: Value,
    indices: Value,
    output_shape: Value | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """Zeros with the elements of x where MaxPool of this geometry took them from, as its second output says.

    With `output_shape`, zeros are added after each axis.
    """
    require_rank(x, 3)
    rank = x.rank - 2
    steps, around = strides or (1,) * rank, pads or (0,) * (2 * rank)
    for name, given, length in (
        ("kernel_shape", kernel_shape, rank),
        ("strides", steps, rank),
        ("pads", around, 2 * rank),
    ):
        if len(given) != length:
            raise InvalidAttribute(f"{name} is {list(given)}; it needs {length} entries")
    axes = zip(x.sizes[2:], steps, kernel_shape, around, around[rank:], strict=False)
    sizes = (*x.sizes[:2], *((n - 1) * step + k - before - after for n, step, k, before, after in axes))
    zeros = O.Expand(x.builder.constant(np.zeros((), x.dtype)), [int(product(sizes))])
    found = O.Reshape(O.ScatterElements(zeros, O.Reshape(indices, [-1]), O.Reshape(x, [-1])), list(sizes))
    if output_shape is None:
        return found
    target = output_shape.known.tolist()
    if len(target) != x.rank or any(to < size for to, size in zip(target, sizes, strict=False)):
        raise ShapeMismatch(f"output_shape is {target}, but the geometry gives {list(sizes)}; it must be as large")
    return O.ConstantPad(found, 0.0, pads=(*[0] * x.rank, *(to - size for to, size in zip(target, sizes, strict=True))))
