"""Comparison, choice and conversion."""

from typing import Any

import ml_dtypes
import numpy as np

from backwire_server.engine.differentiate import is_float
from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.operators import Rule
from backwire_server.engine.registry import elementwise, function, gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import broadcasting, same
from backwire_server.engine.values import O, Value

# The numbers of ONNX's TensorProto.DataType, which Cast's attribute `to` may give instead of a name.
ONNX_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}


def dtype_named(to: Any) -> np.dtype[Any]:
    """Returns the dtype with this name or ONNX number; raises InvalidAttribute when there is none."""
    name = ONNX_DTYPES.get(to, to)
    if name not in ONNX_DTYPES.values():
        known = ", ".join(ONNX_DTYPES.values())
        raise InvalidAttribute(f"{to!r} is not an element type; use one of {known}")
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _comparison(name: str, ufunc: Rule, doc: str, kinds: str = "fi") -> None:
    operands = (F(2, 3), F(3)) if "f" in kinds else (I(0, 1, 1) > 0, I(1, 1, 0) > 0)
    shape = broadcasting(kinds, np.bool_)
    elementwise(name, ufunc, arity=2, shape=shape, doc=doc, samples=[case(*operands)], gradient=None)


_comparison("Equal", np.equal, "a = b, as bool", "fib")
_comparison("Greater", np.greater, "a > b, as bool")
_comparison("GreaterOrEqual", np.greater_equal, "a >= b, as bool")
_comparison("Less", np.less, "a < b, as bool")
_comparison("LessOrEqual", np.less_equal, "a <= b, as bool")
_comparison("And", np.logical_and, "a and b, for bools", "b")
_comparison("Or", np.logical_or, "a or b, for bools", "b")
_comparison("Xor", np.logical_xor, "either a or b, for bools", "b")


@op("Not", shape=same("b"), samples=[case(I(0, 1) > 0)], elementwise=True)
def logical_not(x: Array, *, out: Array | None = None) -> Array:
    """not x, for bools"""
    return np.logical_not(x, out=out)


def _cast_type(x: Value, *, to: Any, saturate: int = 1) -> TensorType:
    return TensorType(dtype_named(to), x.shape)


@op(
    "Cast",
    shape=_cast_type,
    samples=[case(F(2, 3), to="float64"), case(F(3), to="int32"), case(I(0, 2), to=9)],
    elementwise=True,
)
def cast(x: Array, *, to: Any, saturate: int = 1, out: Array | None = None) -> Array:
    """x converted to the type `to`, a name such as `float32` or ONNX's number of it; floats are cut towards zero.

    `saturate` matters for 8-bit floats only, which the engine does not have.
    """
    if out is None:
        return x.astype(dtype_named(to))
    np.copyto(out, x, casting="unsafe")
    return out


@gradient("Cast")
def _(g: Value, y: Value, x: Value, *, to: Any, saturate: int) -> Value | None:
    return O.Cast(g, to=x.dtype.name) if is_float(x.dtype) else None


@function("Identity", samples=[case(F(2, 3))])
def identity(x: Value) -> Value:
    """x itself"""
    return x
