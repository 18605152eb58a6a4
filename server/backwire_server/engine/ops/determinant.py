"""The determinant, with a gradient that also holds at singular matrices."""

import numpy as np

from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.linear import transposed
from backwire_server.engine.registry import gradient, op
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import require, require_equal, require_rank
from backwire_server.engine.values import O, Value

REGULAR = np.array([[2.0, 0.5, -0.3], [0.1, 1.5, 0.4], [-0.6, 0.2, 1.2]])


def _square_type(x: Value) -> TensorType:
    require_rank(x, 2)
    require_equal(x.shape[-2], x.shape[-1], "the sizes of the last two axes")
    return TensorType(require(x, "f"), x.shape)


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


@op(
    "Det",
    shape=lambda x: TensorType(_square_type(x).dtype, x.shape[:-2]),
    samples=[case(REGULAR), case(F(2, 2, 2)), case(F(1, 1))],
)
def det(x: Array) -> Array:
    """The determinant of the matrices in the last two axes."""
    return np.asarray(np.linalg.det(_wide(x))).astype(x.dtype, copy=False)


@gradient("Det")
def _(g: Value, y: Value, x: Value) -> Value:
    return O.Unsqueeze(g, [-2, -1]) * O.Cofactor(x)


@op("Cofactor", shape=_square_type, samples=[case(REGULAR)], internal=True)
def cofactor(x: Array) -> Array:
    """The gradient of the determinant: det(x) times the transposed inverse, from the singular values of x."""
    u, s, vh = np.linalg.svd(_wide(x))
    others = np.where(np.eye(s.shape[-1], dtype=bool), 1, s[..., None, :]).prod(-1, dtype=s.dtype)
    sign = np.linalg.det(u) * np.linalg.det(vh)
    return ((u * (others * sign[..., None])[..., None, :]) @ vh).astype(x.dtype, copy=False)


@gradient("Cofactor")
def _(g: Value, y: Value, x: Value) -> Value:
    inverse = transposed(O.Inverse(x))
    return y * O.ReduceSum(g * inverse, [-2, -1]) - y @ transposed(g) @ inverse


@op("Inverse", shape=_square_type, samples=[case(REGULAR)], internal=True)
def inverse(x: Array) -> Array:
    """The inverse of the matrices in the last two axes; not a number where there is none."""
    regular = np.linalg.det(_wide(x)) != 0
    safe = np.where(regular[..., None, None], _wide(x), np.eye(x.shape[-1]))
    return np.where(regular[..., None, None], np.linalg.inv(safe), np.nan).astype(x.dtype, copy=False)


@gradient("Inverse")
def _(g: Value, y: Value, x: Value) -> Value:
    return -(transposed(y) @ g @ transposed(y))
