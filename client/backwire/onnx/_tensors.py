"""Arrays, element types and shapes, as ONNX and as the client have them."""

from typing import Any

import numpy as np
import onnx

from backwire import _arrays
from backwire._arrays import Array, DType
from backwire._builder._shapes import Dim, Shape
from backwire_api import tensors
from backwire_api.v1 import tensor_pb2

_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}  # the others are called as in numpy
_WIRE = frozenset(tensor_pb2.DataType.keys())
_INFERRED = "unk__"  # begins the symbols that shape inference makes up

_DTYPES: dict[int, DType] = {}
for _name, _number in onnx.TensorProto.DataType.items():
    _wire = f"DATA_TYPE_{_NAMES.get(_name, _name).upper()}"
    if _wire in _WIRE:
        _DTYPES[_number] = tensors.dtype_of(tensor_pb2.DataType.Value(_wire))

_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


def dtype_of(number: int) -> DType | None:
    """Returns the dtype of a TensorProto.DataType, or None for text, complex, 4 bit and the like."""
    return _DTYPES.get(number)


def number_of(dtype: DType) -> int:
    """Returns the TensorProto.DataType of a dtype that can be sent."""
    return _NUMBERS[dtype]


def array_of(tensor: onnx.TensorProto) -> Array:
    """Returns the tensor's numbers, of the dtype that its type has here."""
    array: Array = onnx.numpy_helper.to_array(tensor)
    return array.astype(_DTYPES[tensor.data_type], copy=False)


def tensor_of(name: str, array: Array) -> onnx.TensorProto:
    """Returns the array as a TensorProto, its bytes little-endian."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return onnx.TensorProto(name=name, data_type=number_of(array.dtype), dims=array.shape, raw_data=data)


def shape_of(type_: onnx.TypeProto.Tensor) -> Shape:
    """Returns the shape that a type tells, symbols by their names, or None without one."""
    return tuple(map(_dim, type_.shape.dim)) if type_.HasField("shape") else None


def value_info(name: str, dtype: DType, shape: Shape) -> onnx.ValueInfoProto:
    """Returns the declaration of an input or output."""
    return onnx.helper.make_tensor_value_info(name, number_of(dtype), shape)


def is_float_tensor(tensor: onnx.TensorProto) -> bool:
    """Tells whether the tensor's type is a floating-point one that can be sent."""
    dtype = dtype_of(tensor.data_type)
    return dtype is not None and _arrays.is_float(dtype)


def _dim(dim: Any) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    symbol = str(dim.dim_param)
    return symbol if symbol and not symbol.startswith(_INFERRED) else None
