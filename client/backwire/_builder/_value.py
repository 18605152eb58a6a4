"""Value: a node's result, an input, a parameter or a constant of a graph that is being built.

Values are immutable and refer to what they are computed from, so that any of them stands for the graph that computes
it. Building is eager: a mistake in shapes or dtypes is raised on the line that makes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backwire import _arrays
from backwire._arrays import INT64, DType
from backwire._builder import _indexing, _shapes
from backwire._builder._node import AttributeValue, Constant, Node, Source, checked_name
from backwire._builder._shapes import Shape
from backwire._errors import DTypeError, GraphError
from backwire_api.v1 import graph_pb2


class Value:
    """An array that does not have its numbers yet: what builders return and operators combine.

    Operators and functions broadcast as numpy's do; numbers, lists and arrays take the dtype of the value they are
    combined with. `a == b` compares identity; use `bw.equal` for elements.

    Attributes:
        dtype: The element type, a numpy dtype.
        shape: A tuple of sizes, of names for sizes that each Forward chooses, and of None where the client does not
            know; or None when it does not know the rank.
        name: The name given to it, or an empty text.

    Example:
        >>> x = bw.input("x", ("batch", 3))
        >>> (x * 2 + 1)[:, 0].shape
        ('batch',)
    """

    __slots__ = ("dtype", "index", "name", "shape", "source")
    __array_ufunc__ = None  # so that numpy arrays on the left leave the operator to us
    __iter__ = None  # or Python would index for ever

    def __init__(self, source: Source, dtype: DType, shape: Shape, *, name: str = "", index: int = 0) -> None:
        self.source = source
        self.dtype = dtype
        self.shape = shape
        self.name = name
        self.index = index

    def named(self, name: str) -> "Value":
        """Returns this value under a name of its own, which messages, drawings and the graph show.

        Raises GraphError for inputs and parameters, which have their name already.
        """
        if isinstance(self.source, graph_pb2.Input | graph_pb2.Parameter):
            raise GraphError(f"{self.name!r} has its name from where it was declared; rename it there")
        return Value(self.source, self.dtype, self.shape, name=checked_name(name), index=self.index)

    @property
    def label(self) -> str:
        """What messages call this value: its name, or the op that computes it."""
        if self.name or not isinstance(self.source, Node):
            return self.name or "a constant"
        return f"{self.source.scope}/{self.source.op}" if self.source.scope else self.source.op

    @property
    def T(self) -> "Value":  # noqa: N802 - the name that numpy gave it
        """The value with its axes in reverse order."""
        shape = None if self.shape is None else self.shape[::-1]
        return apply("Transpose", [self], self.dtype, shape)

    def __repr__(self) -> str:
        return f"<{self.label}: {self.dtype.name}{_shapes.show(self.shape)}>"

    def __bool__(self) -> bool:
        raise GraphError(f"{self!r} is neither true nor false before Forward; choose elements with bw.where")

    def __add__(self, other: "Operand") -> "Value":
        return arithmetic("Add", self, other)

    def __radd__(self, other: "Operand") -> "Value":
        return arithmetic("Add", other, self)

    def __sub__(self, other: "Operand") -> "Value":
        return arithmetic("Sub", self, other)

    def __rsub__(self, other: "Operand") -> "Value":
        return arithmetic("Sub", other, self)

    def __mul__(self, other: "Operand") -> "Value":
        return arithmetic("Mul", self, other)

    def __rmul__(self, other: "Operand") -> "Value":
        return arithmetic("Mul", other, self)

    def __truediv__(self, other: "Operand") -> "Value":
        return divide(self, other)

    def __rtruediv__(self, other: "Operand") -> "Value":
        return divide(other, self)

    def __pow__(self, other: "Operand") -> "Value":
        return arithmetic("Pow", self, other)

    def __rpow__(self, other: "Operand") -> "Value":
        return arithmetic("Pow", other, self)

    def __matmul__(self, other: "Operand") -> "Value":
        return matmul(self, other)

    def __rmatmul__(self, other: "Operand") -> "Value":
        return matmul(other, self)

    def __neg__(self) -> "Value":
        return unary("Neg", self)

    def __abs__(self) -> "Value":
        return unary("Abs", self)

    def __gt__(self, other: "Operand") -> "Value":
        return comparison("Greater", self, other)

    def __ge__(self, other: "Operand") -> "Value":
        return comparison("GreaterOrEqual", self, other)

    def __lt__(self, other: "Operand") -> "Value":
        return comparison("Less", self, other)

    def __le__(self, other: "Operand") -> "Value":
        return comparison("LessOrEqual", self, other)

    def __and__(self, other: "Operand") -> "Value":
        return logical("And", self, other)

    def __rand__(self, other: "Operand") -> "Value":
        return logical("And", other, self)

    def __or__(self, other: "Operand") -> "Value":
        return logical("Or", self, other)

    def __ror__(self, other: "Operand") -> "Value":
        return logical("Or", other, self)

    def __invert__(self) -> "Value":
        require_bool("Not", self)
        return unary("Not", self)

    def __getitem__(self, key: Any) -> "Value":
        """Returns a part, as numpy's basic indexing does, or rows by one array of integers (Gather)."""
        return _select(self, key)


Operand = Value | ArrayLike


def as_constant(value: ArrayLike, dtype: DTypeLike | None = None, what: str = "a constant") -> Value:
    """Returns an unnamed constant; without a dtype, floating-point data becomes float32 and the rest stays."""
    _refuse_several(what, value)
    array = _arrays.to_array(value, what)
    if dtype is None:
        array = array.astype(_arrays.FLOAT32, copy=True) if _arrays.is_float(array.dtype) else array.copy()
    else:
        array = _arrays.convert(value, _arrays.dtype_of(dtype), what).copy()
    array.flags.writeable = False
    return Value(Constant(array), array.dtype, array.shape)


def as_values(op: str, *operands: Operand) -> list[Value]:
    """Returns the operands as values of one dtype: that of the first that is a Value already.

    Raises DTypeError when two values differ, or when a number or array cannot become that dtype.
    """
    for operand in operands:
        _refuse_several(op, operand)
    values = [operand for operand in operands if isinstance(operand, Value)]
    if not values:
        raise GraphError(f"{op}: none of its operands is a Value; begin with bw.input, bw.parameter or bw.constant")
    for value in values:
        if value.dtype != values[0].dtype:
            raise DTypeError(
                f"{op}: {values[0]!r} and {value!r} have different dtypes; "
                f"convert one with bw.cast(value, {values[0].dtype.name!r})"
            )
    dtype = values[0].dtype
    return [item if isinstance(item, Value) else as_constant(item, dtype, f"{op}: its operand") for item in operands]


def apply(
    op: str,
    inputs: Sequence[Value | None],
    dtype: DType,
    shape: Shape,
    *,
    scope: str = "",
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Value:
    """Returns the only output of a new node."""
    for each in inputs:
        if each is not None:
            require_value(op, each)
    return Value(Node(op, tuple(inputs), attributes or {}, scope), dtype, shape)


def unary(op: str, x: Value) -> Value:
    """Returns an elementwise function of one value, of its dtype and shape."""
    require_value(op, x)
    return apply(op, [x], x.dtype, x.shape)


def broadcasting(op: str, values: Sequence[Value], dtype: DType) -> Value:
    """Returns an elementwise function of several values that broadcast."""
    what = f"{op} of {' and '.join(value.label for value in values)}"
    return apply(op, values, dtype, _shapes.broadcast(what, *(value.shape for value in values)))


def arithmetic(op: str, a: Operand, b: Operand) -> Value:
    """Returns a node of two operands of one dtype; bools are refused."""
    values = as_values(op, a, b)
    if values[0].dtype == _arrays.BOOL:
        raise DTypeError(f"{op}: {values[0]!r} is bool; convert it with bw.cast(value, 'float32')")
    return broadcasting(op, values, values[0].dtype)


def divide(a: Operand, b: Operand) -> Value:
    """Returns the quotient of floating-point operands."""
    values = as_values("Div", a, b)
    for value in values:
        require_float("Div", value)
    return broadcasting("Div", values, values[0].dtype)


def comparison(op: str, a: Operand, b: Operand) -> Value:
    """Returns a bool node of two operands of one dtype."""
    return broadcasting(op, as_values(op, a, b), _arrays.BOOL)


def logical(op: str, a: Operand, b: Operand) -> Value:
    """Returns a bool node of two bool operands."""
    values = as_values(op, a, b)
    for value in values:
        require_bool(op, value)
    return broadcasting(op, values, _arrays.BOOL)


def matmul(a: Operand, b: Operand) -> Value:
    """Returns the matrix product under numpy's rules."""
    left, right = as_values("MatMul", a, b)
    shape = _shapes.matmul(f"MatMul of {left.label} and {right.label}", left.shape, right.shape)
    return apply("MatMul", [left, right], left.dtype, shape)


def require_value(op: str, value: object) -> None:
    """Raises GraphError unless the value is one, and not an array, a name, or all the outputs of a node."""
    if not isinstance(value, Value):
        _refuse_several(op, value)
        text = f"an array of shape {list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
        raise GraphError(f"{op}: {text} is no Value; make one with bw.input, bw.parameter or bw.constant")


def _refuse_several(op: str, operand: object) -> None:
    """Raises GraphError for Values in a tuple or list, as which `bw.op` and `bw.split` return outputs."""
    if isinstance(operand, tuple | list) and any(isinstance(item, Value) for item in operand):
        raise GraphError(
            f"{op}: one Value is needed here, not a {type(operand).__name__} of {len(operand)}; take one by its place, "
            "such as [0], or join them with bw.concat or bw.stack"
        )


def require_float(op: str, value: Value) -> None:
    """Raises DTypeError unless the value is of a floating-point type."""
    require_value(op, value)
    if not _arrays.is_float(value.dtype):
        raise DTypeError(f"{op}: {value!r} is not floating-point; convert it with bw.cast(value, 'float32')")


def require_bool(op: str, value: Value) -> None:
    """Raises DTypeError unless the value is bool."""
    require_value(op, value)
    if value.dtype != _arrays.BOOL:
        raise DTypeError(f"{op}: {value!r} is not bool; compare it with something first")


def integers(items: Sequence[int]) -> Value:
    """Returns the int64 constant that ops take for axes, sizes and the like."""
    return as_constant(np.asarray(items, INT64), INT64)


def _select(x: Value, key: Any) -> Value:
    _shapes.rank_of("an index", x.shape)
    selection = _indexing.parse(key, x.shape or ())
    if selection.slices:
        x = _slice(x, selection.slices)
    if selection.dropped:
        shape = _shapes.reduced(x.shape or (), selection.dropped, keepdims=False)
        x = apply("Squeeze", [x, integers(selection.dropped)], x.dtype, shape)
    if selection.index is not None:
        x = gather(x, selection.index, selection.index_axis)
    if selection.added:
        x = insert_axes(x, selection.added)
    return x


def _slice(x: Value, slices: Mapping[int, slice]) -> Value:
    dims = list(x.shape or ())
    for axis, item in slices.items():
        dims[axis] = _indexing.sliced(dims[axis], item)
    starts, ends, steps = zip(*map(_indexing.bounds, slices.values()), strict=True)
    parts = [integers(items) for items in (starts, ends, list(slices), steps)]
    return apply("Slice", [x, *parts], x.dtype, tuple(dims))


def insert_axes(x: Value, axes: Sequence[int]) -> Value:
    """Returns the value with axes of size 1 at the given places of the result, which count from the front."""
    shape: Shape = None
    if x.shape is not None:
        rest = iter(x.shape)
        shape = tuple(1 if place in axes else next(rest) for place in range(len(x.shape) + len(axes)))
    return apply("Unsqueeze", [x, integers(sorted(axes))], x.dtype, shape)


def gather(x: Value, indices: Operand, axis: int, *, from_end: bool = True, scope: str = "") -> Value:
    """Returns the slices of `x` along `axis` that integer `indices` name; negative ones may count `from_end`."""
    require_value("Gather", x)
    index = indices if isinstance(indices, Value) else as_constant(indices)
    if index.dtype.kind not in "iu":
        raise DTypeError(f"Gather: indices are integers, not {index!r}; masks of bools are not supported, use bw.where")
    if index.dtype.name not in ("int32", "int64"):
        index = apply("Cast", [index], INT64, index.shape, attributes={"to": 7})
    shape: Shape = None
    if x.shape is not None and index.shape is not None:
        axis = _shapes.axis_of("Gather", axis, len(x.shape))
        shape = x.shape[:axis] + index.shape + x.shape[axis + 1 :]
    attributes: dict[str, AttributeValue] = {"axis": axis, **({} if from_end else {"from_end": 0})}
    return apply("Gather", [x, index], x.dtype, shape, scope=scope, attributes=attributes)
