"""Declares where a graph begins: inputs, parameters and constants."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backwire import _arrays
from backwire._builder._initializers import GlorotUniform, Initializer, Zeros
from backwire._builder._node import checked_name
from backwire._builder._value import Value, as_constant
from backwire._errors import DTypeError, GraphError, ShapeError
from backwire_api import tensors
from backwire_api.v1 import graph_pb2


def input(name: str, shape: Sequence[int | str | None], dtype: DTypeLike = "float32") -> Value:  # noqa: A001
    """Declares a value that every Forward supplies.

    Args:
        name: The key under which `Session.forward` takes the array; unique in the graph.
        shape: The dimensions; a text such as `"batch"` names a size that each Forward chooses, the same wherever the
            name occurs, and None stands for one without a name. Empty for a scalar.
        dtype: The element type.

    Example:
        >>> x = bw.input("x", ("batch", 64))
        >>> labels = bw.input("labels", ("batch",), dtype="int64")
    """
    checked, kind = checked_name(name), _arrays.dtype_of(dtype)
    if isinstance(shape, str | int) or not all(_is_dimension(dim) for dim in shape):
        raise ShapeError(f"input {name!r}: {shape!r} is no shape; give a tuple such as ('batch', 64)")
    dims = tuple(
        f"{checked}_{axis}" if dim is None else dim if isinstance(dim, str) else int(dim)
        for axis, dim in enumerate(shape)
    )
    message = graph_pb2.Input(name=checked, dtype=tensors.data_type_of(kind), shape=map(_dimension, dims))
    return Value(message, kind, dims, name=checked)


def parameter(
    name: str,
    array_or_shape: ArrayLike,
    *,
    initializer: Initializer | None = None,
    unit_axis: int = -1,
    dtype: DTypeLike = "float32",
    frozen: bool = False,
) -> Value:
    """Declares a value that the session keeps and trains.

    Args:
        name: The key under which `Session.parameters` returns it; unique in the graph.
        array_or_shape: A tuple of integers is a shape; an array, list or number is the first value itself.
        initializer: The rule by which the server draws the first value of a shape from the session's seed; by default
            `GlorotUniform()` for two and more axes, and `Zeros()` below.
        unit_axis: The axis that counts the units of the layer, for the initializers that scale with fans.
        dtype: The element type; arrays of another one are converted where that is safe.
        frozen: True for a value that Step never changes and that has no gradient. Parameters that are not of a
            floating-point type must be frozen.

    Example:
        >>> w = bw.parameter("w", [[0.1, 0.2], [0.3, 0.4]])
        >>> u = bw.parameter("u", (64, 10), initializer=bw.Orthogonal())
    """
    checked, kind = checked_name(name), _arrays.dtype_of(dtype)
    if not frozen and not _arrays.is_float(kind):
        raise DTypeError(f"parameter {name!r} is {kind}, which cannot be trained; pass frozen=True or a floating dtype")
    shape = _as_shape(array_or_shape)
    if shape is not None:
        if not -max(len(shape), 1) <= unit_axis < max(len(shape), 1):
            raise ShapeError(f"parameter {name!r}: unit_axis {unit_axis} does not exist in {list(shape)}")
        rule = initializer or (GlorotUniform() if len(shape) > 1 else Zeros())
        message = graph_pb2.Parameter(name=checked, frozen=frozen, initializer=rule.to_proto(kind, shape, unit_axis))
        return Value(message, kind, shape, name=checked)
    if initializer is not None and isinstance(array_or_shape, tuple):
        raise ShapeError(f"parameter {name!r}: {array_or_shape} is no shape; give whole numbers of at least 0 as sizes")
    if initializer is not None:
        raise GraphError(f"parameter {name!r} has a value and an initializer; give a tuple of sizes to draw it instead")
    array = _arrays.convert(array_or_shape, kind, f"parameter {name!r}")
    return Value(
        graph_pb2.Parameter(name=checked, frozen=frozen, value=tensors.encode(array)), kind, array.shape, name=checked
    )


def constant(value: ArrayLike, dtype: DTypeLike | None = None) -> Value:
    """Returns a value that never changes.

    Without `dtype`, floating-point data becomes float32, and integers and bools stay what numpy makes of them. Numbers
    and arrays next to an operator need no `constant`: they take the dtype of the other operand.

    Example:
        >>> mask = bw.constant([[True, False], [True, True]])
    """
    return as_constant(value, dtype)


def _is_dimension(dim: object) -> bool:
    return dim is None or (isinstance(dim, str) and bool(dim)) or _is_size(dim)


def _is_size(dim: object) -> bool:
    return isinstance(dim, int | np.integer) and not isinstance(dim, bool) and int(dim) >= 0


def _as_shape(value: object) -> tuple[int, ...] | None:
    """Returns the value when it is a tuple of sizes, else None."""
    if not isinstance(value, tuple) or not all(_is_size(size) for size in value):
        return None
    return tuple(int(size) for size in value)


def _dimension(dim: int | str) -> graph_pb2.Dimension:
    return graph_pb2.Dimension(symbol=dim) if isinstance(dim, str) else graph_pb2.Dimension(size=dim)
