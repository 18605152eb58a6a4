"""Linear algebra."""

import numpy as np

from backwire_server.engine.dims import broadcast
from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import F, case, function, gradient, op
from backwire_server.engine.shapes import common_dtype, require_equal, require_rank
from backwire_server.engine.values import O, Value


def _matmul_type(a: Value, b: Value) -> TensorType:
    dtype = common_dtype([a, b], "fi")
    if not a.rank or not b.rank:
        raise ShapeMismatch("a scalar has no matrix product; use Mul")
    require_equal(a.shape[-1], b.shape[-2] if b.rank > 1 else b.shape[0], "the sizes that are summed over")
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return TensorType(dtype, (*batch, *(a.shape[-2:-1]), *(b.shape[-1:] if b.rank > 1 else ())))


@op(
    "MatMul",
    shape=_matmul_type,
    samples=[
        case(F(2, 3), F(3, 4)),
        case(F(3), F(3)),
        case(F(3), F(3, 2)),
        case(F(2, 3), F(3)),
        case(F(5, 2, 3), F(3, 4)),
        case(F(2, 1, 2, 3), F(4, 3, 2)),
        case(F(3), F(2, 3, 2)),
        case(F(2, 4, 3), F(3)),
    ],
)
def matmul(a: Array, b: Array) -> Array:
    """The matrix product of the last two axes, batched over the others, as in numpy."""
    return np.asarray(np.matmul(a, b)).astype(a.dtype, copy=False)  # of bfloat16 numpy makes float32


def transposed(x: Value) -> Value:
    """Returns x with its last two axes exchanged."""
    return O.Transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


@gradient("MatMul")
def _(g: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    row, column = a.rank == 1, b.rank == 1
    if row:
        a = O.Unsqueeze(a, [0])
        g = O.Unsqueeze(g, [-1 if column else -2])
    if column:
        b = O.Unsqueeze(b, [1])
        g = O.Unsqueeze(g, [-1])
    by_a, by_b = g @ transposed(b), _weight_gradient(a, g, b)
    return (_without(by_a, -2) if row else by_a), (_without(by_b, -1) if column else by_b)


def _weight_gradient(a: Value, g: Value, b: Value) -> Value:
    """Returns a^T g; where b is one matrix for a whole batch, as a single product that also sums over the batch."""
    if b.rank == 2 and a.rank > 2:
        a, g = O.Reshape(a, [-1, a.shape[-1]]), O.Reshape(g, [-1, g.shape[-1]])
    return transposed(a) @ g


def _without(x: Value, axis: int) -> Value:
    return O.Squeeze(x, [axis % x.rank])


@function(
    "Gemm",
    samples=[
        case(F(2, 3), F(3, 4), F(4)),
        case(F(2, 3), F(3, 4)),
        case(F(3, 2), F(4, 3), F(2, 1), alpha=0.5, beta=0.25, transA=1, transB=1),
    ],
)
def gemm(
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """alpha A' B' + beta C, where A' is A or its transpose, likewise B', and C broadcasts to the product."""
    require_rank(a, 2, 2)
    require_rank(b, 2, 2)
    product = (transposed(a) if transA else a) @ (transposed(b) if transB else b)
    product = product if alpha == 1.0 else product * alpha
    if c is None:
        return product
    return product + (c if beta == 1.0 else c * beta)
