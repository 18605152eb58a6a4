"""Elementwise functions, named as in NumPy and PyTorch."""

from collections.abc import Sequence

from numpy.typing import DTypeLike

from backwire import _arrays
from backwire._builder._node import AttributeValue
from backwire._builder._value import (
    Operand,
    Value,
    apply,
    as_constant,
    as_values,
    broadcasting,
    comparison,
    require_bool,
    require_float,
    require_value,
    unary,
)
from backwire._errors import GraphError

# The numbers that ONNX gives to dtypes, for Cast and its like.
ONNX_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "bfloat16": 16,
}


def float_unary(op: str, x: Value, **attributes: AttributeValue) -> Value:
    """Returns an elementwise function of a floating-point value; raises DTypeError for another."""
    (value,) = as_values(op, x)
    require_float(op, value)
    return apply(op, [value], value.dtype, value.shape, attributes=attributes)


def exp(x: Value) -> Value:
    """Returns e to the power of every element.

    Example:
        >>> bw.exp(bw.input("x", ("batch", 3)))
        <Exp: float32[batch, 3]>
    """
    return float_unary("Exp", x)


def log(x: Value) -> Value:
    """Returns the natural logarithm of every element.

    Example:
        >>> bw.log(bw.input("x", ("batch", 3)))
        <Log: float32[batch, 3]>
    """
    return float_unary("Log", x)


def sqrt(x: Value) -> Value:
    """Returns the square root of every element.

    Example:
        >>> bw.sqrt(bw.input("x", ("batch", 3)))
        <Sqrt: float32[batch, 3]>
    """
    return float_unary("Sqrt", x)


def sin(x: Value) -> Value:
    """Returns the sine of every element, in radians.

    Example:
        >>> bw.sin(bw.input("x", ("batch", 3)))
        <Sin: float32[batch, 3]>
    """
    return float_unary("Sin", x)


def cos(x: Value) -> Value:
    """Returns the cosine of every element, in radians.

    Example:
        >>> bw.cos(bw.input("x", ("batch", 3)))
        <Cos: float32[batch, 3]>
    """
    return float_unary("Cos", x)


def erf(x: Value) -> Value:
    """Returns the error function of every element.

    Example:
        >>> bw.erf(bw.input("x", ("batch", 3)))
        <Erf: float32[batch, 3]>
    """
    return float_unary("Erf", x)


def reciprocal(x: Value) -> Value:
    """Returns 1 / x for every element.

    Example:
        >>> bw.reciprocal(bw.input("x", ("batch", 3)))
        <Reciprocal: float32[batch, 3]>
    """
    return float_unary("Reciprocal", x)


def sign(x: Value) -> Value:
    """Returns -1, 0 or 1 for every element; its gradient is zero.

    Example:
        >>> bw.sign(bw.input("x", ("batch", 3)))
        <Sign: float32[batch, 3]>
    """
    return unary("Sign", x)


def maximum(*values: Operand) -> Value:
    """Returns the greatest of several values at every place; they broadcast.

    Example:
        >>> bw.maximum(bw.input("x", ("batch", 3)), 0.5)
        <Max: float32[batch, 3]>
    """
    return _among("Max", values)


def minimum(*values: Operand) -> Value:
    """Returns the least of several values at every place; they broadcast.

    Example:
        >>> bw.minimum(bw.input("x", ("batch", 3)), 0.5)
        <Min: float32[batch, 3]>
    """
    return _among("Min", values)


def clip(x: Value, low: float | None = None, high: float | None = None) -> Value:
    """Returns x limited to [low, high]; None leaves that side open. The gradient is 0 outside.

    Example:
        >>> bw.clip(bw.input("x", ("batch", 3)), -1, 1)
        <Clip: float32[batch, 3]>
    """
    if low is None and high is None:
        raise GraphError("Clip: give low, high, or both")
    require_value("Clip", x)
    bounds = [None if bound is None else as_constant(bound, x.dtype, "a bound of Clip") for bound in (low, high)]
    return apply("Clip", [x, *(bounds if high is not None else bounds[:1])], x.dtype, x.shape)


def where(condition: Value, x: Operand, y: Operand) -> Value:
    """Returns x where the condition holds and y elsewhere; the three broadcast.

    Example:
        >>> x = bw.input("x", ("batch", 3))
        >>> bw.where(x > 0, x, 0.1 * x)
        <Where: float32[batch, 3]>
    """
    require_bool("Where", condition)
    values = [condition, *as_values("Where", x, y)]
    return broadcasting("Where", values, values[1].dtype)


def equal(a: Operand, b: Operand) -> Value:
    """Returns a bool for every element: whether the two are the same number.

    Example:
        >>> bw.equal(bw.input("guess", ("batch",), "int64"), bw.input("label", ("batch",), "int64"))
        <Equal: bool[batch]>
    """
    return comparison("Equal", a, b)


def not_equal(a: Operand, b: Operand) -> Value:
    """Returns a bool for every element: whether the two are different numbers.

    Example:
        >>> bw.not_equal(bw.input("word", ("batch", "length"), "int64"), 0)
        <Not: bool[batch, length]>
    """
    return unary("Not", equal(a, b))


def cast(x: Value, dtype: DTypeLike) -> Value:
    """Returns the elements as another dtype; floats are truncated towards zero to become integers.

    Example:
        >>> bw.cast(bw.input("pixels", ("batch", 28, 28), "uint8"), "float32")
        <Cast: float32[batch, 28, 28]>
    """
    require_value("Cast", x)
    kind = _arrays.dtype_of(dtype)
    return apply("Cast", [x], kind, x.shape, attributes={"to": ONNX_TYPES[kind.name]})


def _among(op: str, operands: Sequence[Operand]) -> Value:
    values = as_values(op, *operands)
    return broadcasting(op, values, values[0].dtype)
