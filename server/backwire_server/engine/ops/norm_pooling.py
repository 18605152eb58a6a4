"""Lp and global pooling, and MaxUnpool."""

import numpy as np

from backwire_server.engine.dims import product
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import window_of

Ints = tuple[int, ...]


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
    total = O.SumPooling(
        O.Abs(x) ** float(p),
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
    )
    return _root(total, p)


@function("GlobalLpPool", samples=[case(F(2, 3, 4)), case(F(1, 2, 2, 3), p=3)])
def global_lp_pool(x: Value, *, p: int = 2) -> Value:
    """The p-norm over all spatial axes of x [N, C, d1, ...], which are kept with size 1."""
    require_rank(x, 3)
    return _root(O.ReduceSum(O.Abs(x) ** float(p), list(range(2, x.rank))), p)


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
