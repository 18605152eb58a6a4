"""Adds up what flows into one gradient along several paths."""

from collections.abc import Sequence
from functools import reduce

from backwire_server.engine.narrow import SINGLE, is_narrow
from backwire_server.engine.values import O, Value

MANY = 4  # products that are worth joining into one


def total(contributions: Sequence[Value]) -> Value:
    """Returns the sum. Many small products a^T b, such as those of the steps of a recurrent layer, become one.

    With the a and the b below one another, `a1^T b1 + a2^T b2 + ... = [a1; a2; ...]^T [b1; b2; ...]`: one large product
    instead of many small ones, and no sums of whole matrices.
    """
    products = {index: pair for index, value in enumerate(contributions) if (pair := _small_product(value))}
    if len(products) < MANY:
        return _sum(contributions)
    left, right = (O.Concat(*factors, axis=0) for factors in zip(*products.values(), strict=True))
    rest = [value for index, value in enumerate(contributions) if index not in products]
    return _sum([O.Transpose(left, perm=(1, 0)) @ right, *rest])


def _sum(values: Sequence[Value]) -> Value:
    """Returns the sum; numbers of two bytes are added in float32, and rounded once."""
    dtype = values[0].dtype
    if len(values) == 1 or not is_narrow(dtype):
        return reduce(Value.__add__, values)
    return O.Cast(reduce(Value.__add__, [O.Cast(each, to=SINGLE.name) for each in values]), to=dtype.name)


def _small_product(value: Value) -> tuple[Value, Value] | None:
    """Returns a and b when the value is a^T b of matrices with so few rows that copying them is cheaper than adding."""
    builder = value.builder
    node = builder.origins.get(value.name)
    if node is None or node.op.name != "MatMul" or value.rank != 2:
        return None
    turned = builder.origins.get(node.inputs[0])
    if turned is None or turned.op.name != "Transpose":
        return None
    a, b = Value(builder, turned.inputs[0]), Value(builder, node.inputs[1])
    if a.rank != 2 or b.rank != 2:
        return None
    rows, columns = a.sizes
    return (a, b) if rows * (columns + b.sizes[1]) <= columns * b.sizes[1] else None
