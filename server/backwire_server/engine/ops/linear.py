"""Linear algebra."""

from functools import partial

import numpy as np

from backwire_server.engine.dims import broadcast
from backwire_server.engine.errors import ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.narrow import single
from backwire_server.engine.registry import Call, Take, function, gradient, op, prepared
from backwire_server.engine.samples import F, case
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
    return np.asarray(np.matmul(single(a), single(b))).astype(a.dtype, copy=False)


@prepared("MatMul")
def _(out: Array, a: Array, b: Array, *, take: Take) -> list[Call]:
    calls: list[Call] = []
    a, b = (_for_blas(x, take, calls) for x in (a, b))
    if a.dtype.kind not in "fiu" or a.dtype.itemsize < 4:
        return [*calls, partial(_store_product, a, b, out)]
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous and out.flags.c_contiguous:
        a, out = a.reshape(-1, a.shape[-1]), out.reshape(-1, out.shape[-1])
    return [*calls, partial(np.matmul, a, b, out=out)]


def _for_blas(x: Array, take: Take, calls: list[Call]) -> Array:
    if _suits_blas(x):
        return x
    room = take(x.shape, x.dtype)
    calls.append(partial(np.copyto, room, x))
    return room


def _store_product(a: Array, b: Array, out: Array) -> None:
    np.copyto(out, matmul(a, b))


def _suits_blas(x: Array) -> bool:
    """Tells whether BLAS takes the matrices of x as they lie; of others numpy multiplies element by element."""
    if x.size <= 1:
        return True
    if x.ndim < 2:
        return x.strides[0] == x.itemsize
    (rows, columns), (row, column) = x.shape[-2:], x.strides[-2:]
    plain = column == x.itemsize and row % x.itemsize == 0 and row >= column * columns
    swapped = row == x.itemsize and column % x.itemsize == 0 and column >= row * rows
    return plain or swapped


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
