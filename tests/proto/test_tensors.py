"""The tensor codec: what is sent arrives bit for bit, and a message that lies about itself costs nothing."""

import math
import re
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backwire_api.tensors import MAX_RANK, Array, TensorError, data_type_of, decode, dtype_of, encode
from backwire_api.v1 import tensor_pb2

DATA_TYPES = [number for number in tensor_pb2.DataType.values() if number]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn) -> Array:
    """Arrays of every dtype with arbitrary bits, NaN payloads included; a bool is 0 or 1."""
    dtype, shape = dtype_of(draw(st.sampled_from(DATA_TYPES))), draw(SHAPES)
    size = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == np.bool_:
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, dtype).reshape(shape)


def assert_same_bits(one: Array, other: Array) -> None:
    assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@given(tensors())
def test_every_array_survives_the_wire_bit_for_bit(array: Array) -> None:
    received = tensor_pb2.Tensor.FromString(encode(array).SerializeToString())
    assert_same_bits(decode(received), array)


@given(tensors())
def test_layout_in_memory_does_not_change_what_is_sent(array: Array) -> None:
    for view in (array.T, np.flip(array), np.asfortranarray(array)):
        assert_same_bits(decode(encode(view)), np.ascontiguousarray(view).reshape(view.shape))


@pytest.mark.parametrize("number", DATA_TYPES, ids=tensor_pb2.DataType.Name)
def test_big_endian_arrays_are_sent_little_endian(number: tensor_pb2.DataType.ValueType) -> None:
    array = np.array([0, 1, 1], dtype_of(number))
    swapped = array.astype(array.dtype.newbyteorder(">"))
    assert encode(swapped).data == array.tobytes()
    assert data_type_of(swapped.dtype) == number


def test_the_bytes_are_those_that_the_contract_describes() -> None:
    tensor = encode(np.array([[1.0, -2.0]], ">f4"))
    assert (tensor.dtype, list(tensor.shape)) == (tensor_pb2.DATA_TYPE_FLOAT32, [1, 2])
    assert tensor.data == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    assert encode(np.array(1.0, ml_dtypes.bfloat16)).data == b"\x80\x3f"
    assert encode(np.array([True, False])).data == b"\x01\x00"


def test_python_numbers_and_lists_are_tensors_too() -> None:
    assert_same_bits(decode(encode(2.5)), np.array(2.5))
    assert_same_bits(decode(encode([[1, 2], [3, 4]])), np.array([[1, 2], [3, 4]], np.int64))


def test_a_decoded_array_shares_the_message_and_cannot_be_written() -> None:
    value = decode(encode(np.arange(3.0)))
    assert value.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 1


@pytest.mark.parametrize("dtype", ["U3", "O", "M8[s]", "c8", "g", "V4", ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_a_dtype_without_a_number_is_refused_by_name(dtype: object) -> None:
    value = np.zeros(2, dtype)  # type: ignore[call-overload]
    with pytest.raises(TensorError, match=rf"{re.escape(value.dtype.name)} cannot be sent; convert"):
        encode(value)


HOSTILE = {
    "too few bytes": (tensor_pb2.DATA_TYPE_FLOAT32, [2, 2], b"\0" * 15, "has 16 bytes of data, not 15"),
    "too many bytes": (tensor_pb2.DATA_TYPE_FLOAT32, [2, 2], b"\0" * 17, "has 16 bytes of data, not 17"),
    "an empty scalar": (tensor_pb2.DATA_TYPE_INT8, [], b"", "has 1 bytes of data, not 0"),
    "bytes for an empty shape": (tensor_pb2.DATA_TYPE_INT8, [0], b"\0", "has 0 bytes of data, not 1"),
    "a huge shape": (tensor_pb2.DATA_TYPE_FLOAT64, [2**40], b"\0" * 8, "bytes of data, not 8"),
    "a product that wraps to 0": (tensor_pb2.DATA_TYPE_INT8, [2**32, 2**32], b"", "too large"),
    "a product that wraps to 4": (tensor_pb2.DATA_TYPE_INT8, [2**62, 2, 2, 4], b"\0" * 4, "too large"),
    "an empty shape that numpy cannot hold": (tensor_pb2.DATA_TYPE_FLOAT64, [2**61, 0], b"", "too large"),
    "a negative dimension": (tensor_pb2.DATA_TYPE_INT8, [-1], b"", "negative"),
    "two negative dimensions": (tensor_pb2.DATA_TYPE_INT8, [-2, -2], b"\0" * 4, "negative"),
    "a rank without end": (tensor_pb2.DATA_TYPE_INT8, [1] * (MAX_RANK + 1), b"\0", "rank 33 is too deep"),
    "no dtype": (tensor_pb2.DATA_TYPE_UNSPECIFIED, [1], b"\0", "not a known DataType"),
    "a dtype of the future": (99, [1], b"\0", "not a known DataType"),
    "a dtype below zero": (-1, [1], b"\0", "not a known DataType"),
    "a bool that is 2": (tensor_pb2.DATA_TYPE_BOOL, [2], b"\1\2", "neither 0 nor 1"),
    "a scalar bool that is 255": (tensor_pb2.DATA_TYPE_BOOL, [], b"\xff", "neither 0 nor 1"),
}


@pytest.mark.parametrize(("dtype", "shape", "data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_tensor_that_lies_is_refused_before_memory_is_taken(
    dtype: int, shape: list[int], data: bytes, message: str
) -> None:
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DataType.ValueType(dtype), shape=shape, data=data)
    tracemalloc.start()
    try:
        with pytest.raises(TensorError, match=message):
            decode(tensor)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


SIZES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 4))


@given(st.integers(-(2**31), 2**31 - 1), st.lists(SIZES, max_size=40), st.binary(max_size=64))
def test_any_message_gives_an_array_of_what_it_says_or_a_tensor_error(
    dtype: int, shape: list[int], data: bytes
) -> None:
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DataType.ValueType(dtype), shape=shape, data=data)
    try:
        value = decode(tensor)
    except TensorError:
        return
    assert (list(value.shape), value.tobytes()) == (shape, data)
