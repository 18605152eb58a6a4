"""Turns numpy arrays into Tensor messages and back: the only tensor codec, used by the server and the SDK."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from backwire_api.v1 import tensor_pb2

Array = NDArray[Any]
Bytes = bytes | NDArray[np.uint8]
NO_BYTES = b""
COPIED_BYTES = 1_024  # up to here a copy is cheaper than a view

MAX_RANK = 32  # numpy allows 64; no op here needs half of that
_ADDRESSABLE = 2**63 - 1

_DTYPES: dict[tensor_pb2.DataType.ValueType, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    tensor_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    tensor_pb2.DATA_TYPE_INT16: np.dtype("<i2"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_UINT16: np.dtype("<u2"),
    tensor_pb2.DATA_TYPE_UINT32: np.dtype("<u4"),
    tensor_pb2.DATA_TYPE_UINT64: np.dtype("<u8"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("?"),
}
_DATA_TYPES = {dtype: number for number, dtype in _DTYPES.items()}


class TensorError(ValueError):
    """A tensor message that does not say what it must: unknown dtype, impossible shape, or wrong number of bytes."""


class RawTensor(NamedTuple):
    """What a Tensor message holds, beside the message: number of the dtype, dimensions, elements not yet checked."""

    dtype: tensor_pb2.DataType.ValueType
    shape: tuple[int, ...]
    data: Bytes


def dtype_of(data_type: int) -> np.dtype[Any]:
    """Returns the numpy dtype of a DataType; raises TensorError for one that is unspecified or unknown."""
    try:
        return _DTYPES[tensor_pb2.DataType.ValueType(data_type)]
    except KeyError:
        known = ", ".join(tensor_pb2.DataType.Name(number) for number in _DTYPES)
        raise TensorError(f"dtype {data_type} is not a known DataType; use one of {known}") from None


def data_type_of(dtype: np.dtype[Any]) -> tensor_pb2.DataType.ValueType:
    """Returns the DataType of a numpy dtype, whatever its byte order; raises TensorError when there is none."""
    try:
        return _DATA_TYPES[dtype if dtype in _DATA_TYPES else dtype.newbyteorder("<")]
    except KeyError:
        names = ", ".join(known.name for known in _DTYPES.values())
        raise TensorError(f"dtype {dtype.name} cannot be sent; convert the array to one of {names}") from None


def encode(array: ArrayLike) -> tensor_pb2.Tensor:
    """Returns the array as a Tensor, copied once; raises TensorError for a dtype that cannot be sent."""
    value = np.asarray(array)
    dtype = data_type_of(value.dtype)
    return tensor_pb2.Tensor(dtype=dtype, shape=value.shape, data=little_endian(value).tobytes())


def encode_raw(array: ArrayLike) -> RawTensor:
    """Returns the array, not copied unless it is small, big-endian or not in C order; raises as `encode` does."""
    value = np.asarray(array)
    if value.nbytes <= COPIED_BYTES and value.dtype in _DATA_TYPES:
        return RawTensor(_DATA_TYPES[value.dtype], value.shape, value.tobytes())
    return RawTensor(data_type_of(value.dtype), value.shape, little_endian(value).reshape(-1).view(np.uint8))


def decode(tensor: tensor_pb2.Tensor | RawTensor) -> Array:
    """Returns the tensor as a read-only, aligned, C-contiguous array, which shares its bytes where they are aligned.

    Raises TensorError, before any memory is taken, when dtype, shape and number of bytes do not fit together.
    """
    shape, data = tuple(tensor.shape), tensor.data
    dtype, expected = _expected(tensor.dtype, shape)
    if len(data) != expected:
        raise TensorError(
            f"a {dtype.name} tensor of shape {list(shape)} has {expected} bytes of data, not {len(data)}; "
            "send the elements in C order, little-endian, without padding"
        )
    array: Array = np.ndarray(shape, dtype, data)
    if not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = False
    return check_elements(array)


def byte_count(dtype: np.dtype[Any], shape: Sequence[int]) -> int:
    """Returns the bytes of a tensor; raises TensorError for a negative dimension or a rank above MAX_RANK."""
    if len(shape) > MAX_RANK:
        raise TensorError(f"a tensor of rank {len(shape)} is too deep; the most is {MAX_RANK}")
    if any(size < 0 for size in shape):
        raise TensorError(f"shape {list(shape)} has a negative dimension")
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > _ADDRESSABLE:  # numpy refuses it even when empty
        raise TensorError(f"shape {list(shape)} is too large for any memory")
    return math.prod(shape) * dtype.itemsize


@lru_cache(maxsize=1_024)  # shapes repeat in training
def _expected(data_type: int, shape: tuple[int, ...]) -> tuple[np.dtype[Any], int]:
    dtype = dtype_of(data_type)
    return dtype, byte_count(dtype, shape)


def buffer(data: Bytes) -> bytes | memoryview:
    """Returns the bytes as what any function takes that reads bytes."""
    return data if isinstance(data, bytes) else data.data


def little_endian(value: Array) -> Array:
    """Returns the array with its elements as they travel: C-contiguous and little-endian; copied only if it is not."""
    if value.flags.c_contiguous and value.dtype in _DATA_TYPES:
        return value
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)


def check_elements(value: Array) -> Array:
    """Returns the array; raises TensorError for bytes that are no elements of its dtype, as in a bool that is 2."""
    if value.dtype.kind == "b" and value.size and value.view(np.uint8).max() > 1:
        raise TensorError("a bool tensor has a byte that is neither 0 nor 1")
    return value
