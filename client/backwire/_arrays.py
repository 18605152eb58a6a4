"""Turns what people pass (numbers, lists, arrays) into arrays of the dtype that is wanted, or refuses."""

from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy the name bfloat16
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backwire._errors import DTypeError, TensorError
from backwire_api import tensors

Array = tensors.Array
DType = np.dtype[Any]

FLOAT32 = np.dtype(np.float32)
INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)

_FLOATS = frozenset(np.dtype(name) for name in ("float16", "bfloat16", "float32", "float64"))


def dtype_of(dtype: DTypeLike) -> DType:
    """Returns the numpy dtype; raises DTypeError for one that cannot be sent."""
    try:
        found: DType = np.dtype(dtype)
        tensors.data_type_of(found)
    except (TypeError, tensors.TensorError):
        raise DTypeError(f"{dtype!r} is no dtype that can be sent; use one such as 'float32' or 'int64'") from None
    return found


def is_float(dtype: DType) -> bool:
    """Tells whether the dtype is a floating-point one, bfloat16 included."""
    return dtype in _FLOATS


def to_array(value: ArrayLike, what: str) -> Array:
    """Returns the value as an array of the dtype that numpy gives it; raises DTypeError when that cannot be sent."""
    try:
        array = np.asarray(value)
        tensors.data_type_of(array.dtype)
    except (ValueError, tensors.TensorError) as error:
        raise DTypeError(f"{what} is no array that can be sent: {error}") from None
    return array


def convert(value: ArrayLike, dtype: DType, what: str) -> Array:
    """Returns the value as an array of `dtype`, copied only when it has another.

    Floats may become floats, integers integers or floats, and bools anything. Raises DTypeError for float to integer
    and the like, and TensorError for a number that `dtype` cannot hold.
    """
    if isinstance(value, np.ndarray) and value.dtype == dtype:
        return value
    array = to_array(value, what)
    if array.dtype == dtype or (array.size == 0 and not isinstance(value, np.ndarray)):
        return array.astype(dtype, copy=False)
    integers = array.dtype.kind in "iu" and dtype.kind in "iu"
    if not integers and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DTypeError(
            f"{what} is {array.dtype}, but must be {dtype}; convert it with .astype({dtype.name!r}) if that is meant"
        )
    try:
        with np.errstate(over="raise"):
            converted = array.astype(dtype)
    except FloatingPointError:
        raise TensorError(
            f"{what} has a number that is too large for {dtype}; scale it, or use a wider dtype"
        ) from None
    if integers and not np.array_equal(converted, array):
        raise TensorError(f"{what} has a number outside the range of {dtype}; use a wider dtype")
    return converted
