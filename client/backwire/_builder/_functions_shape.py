"""Functions that rearrange elements without computing new ones, named as in NumPy and PyTorch."""

from collections.abc import Sequence

import numpy as np

from backwire import _arrays
from backwire._arrays import INT64
from backwire._builder import _shapes
from backwire._builder._node import AttributeValue, Node
from backwire._builder._shapes import Dim, Shape
from backwire._builder._value import (
    Operand,
    Value,
    apply,
    as_constant,
    as_values,
    gather,
    insert_axes,
    integers,
    require_value,
)
from backwire._errors import DTypeError, GraphError, ShapeError


def reshape(x: Value, shape: Sequence[Dim]) -> Value:
    """Returns the elements in another shape, in C order.

    One size may be -1, for whatever is left; sizes of `x.shape` that are names or None stay what they are.

    Example:
        >>> x = bw.input("x", ("batch", 8, 8))
        >>> bw.reshape(x, (x.shape[0], -1))
        <Reshape: float32[batch, 64]>
    """
    require_value("Reshape", x)
    sizes, result = _shapes.reshaped(x.shape, [_whole(size) for size in shape])
    return apply("Reshape", [x, integers(sizes)], x.dtype, result)


def flatten(x: Value, axis: int = 1) -> Value:
    """Returns a matrix: the axes before `axis` become the first, the others the second.

    Example:
        >>> bw.flatten(bw.input("x", ("batch", 8, 4, 4)))
        <Flatten: float32[batch, 128]>
    """
    require_value("Flatten", x)
    shape: Shape = (None, None)
    if x.shape is not None:
        place = axis if axis == len(x.shape) else _shapes.axis_of("Flatten", axis, len(x.shape))
        shape = (_shapes.product(x.shape[:place]), _shapes.product(x.shape[place:]))
    return apply("Flatten", [x], x.dtype, shape, attributes={"axis": axis})


def transpose(x: Value, axes: Sequence[int] | None = None) -> Value:
    """Returns the value with its axes in another order, by default reversed.

    Example:
        >>> bw.transpose(bw.input("x", ("batch", 3, 4)), [0, 2, 1])
        <Transpose: float32[batch, 4, 3]>
    """
    require_value("Transpose", x)
    if axes is None:
        return x.T
    if len(axes) != _shapes.rank_of("Transpose", x.shape):
        raise ShapeError(f"Transpose of {x!r}: {list(axes)} does not name every axis; give each once")
    order = _shapes.axes_of("Transpose", axes, len(axes))
    shape = tuple((x.shape or ())[axis] for axis in order)
    return apply("Transpose", [x], x.dtype, shape, attributes={"perm": order})


def squeeze(x: Value, axis: int | Sequence[int]) -> Value:
    """Returns the value without the axes, each of which must have size 1.

    Example:
        >>> bw.squeeze(bw.input("x", ("batch", 1, 3)), 1)
        <Squeeze: float32[batch, 3]>
    """
    require_value("Squeeze", x)
    axes = _listed(axis)
    shape: Shape = None
    if x.shape is not None:
        axes = list(_shapes.axes_of(f"Squeeze of {x.label}", axes, len(x.shape)))
        for each in axes:
            if x.shape[each] not in (1, None):
                raise ShapeError(f"Squeeze of {x!r}: axis {each} has size {x.shape[each]}, not 1; index or reduce it")
        shape = _shapes.reduced(x.shape, axes, keepdims=False)
    return apply("Squeeze", [x, integers(axes)], x.dtype, shape)


def unsqueeze(x: Value, axis: int | Sequence[int]) -> Value:
    """Returns the value with new axes of size 1 at the given places of the result.

    Example:
        >>> bw.unsqueeze(bw.input("x", ("batch", 3)), 1)
        <Unsqueeze: float32[batch, 1, 3]>
    """
    require_value("Unsqueeze", x)
    axes = _listed(axis)
    if x.shape is None:
        return apply("Unsqueeze", [x, integers(axes)], x.dtype, None)
    return insert_axes(x, _shapes.axes_of(f"Unsqueeze of {x.label}", axes, len(x.shape) + len(axes)))


def broadcast_to(x: Value, shape: Sequence[int]) -> Value:
    """Returns the value repeated along axes of size 1, or new ones, until it has the shape.

    Example:
        >>> bw.broadcast_to(bw.input("x", (1, 3)), (5, 3))
        <Expand: float32[5, 3]>
    """
    require_value("Expand", x)
    sizes = [int(size) for size in shape]
    result = _shapes.broadcast(f"Expand of {x.label}", x.shape, tuple(sizes))
    if result is not None and len(result) != len(sizes):
        raise ShapeError(f"Expand of {x!r} cannot lower the rank to {len(sizes)}; reshape or reduce it")
    if any(size == 1 and dim != 1 for size, dim in zip(sizes, result or sizes, strict=True)):
        raise ShapeError(f"Expand of {x!r} cannot shrink it to {sizes}; reduce it")
    return apply("Expand", [x, integers(sizes)], x.dtype, result)


def concat(values: Sequence[Operand], axis: int = 0) -> Value:
    """Returns the values one after another along `axis`; their other sizes must agree.

    Example:
        >>> bw.concat([bw.input("x", ("batch", 3)), bw.input("y", ("batch", 2))], axis=1)
        <Concat: float32[batch, 5]>
    """
    parts = as_values("Concat", *values)
    shape: Shape = None
    known = [part.shape for part in parts if part.shape is not None]
    if len(known) == len(parts):
        axis = _shapes.axis_of("Concat", axis, len(known[0]))
        shape = _shapes.concatenated(known, axis)
    return apply("Concat", parts, parts[0].dtype, shape, attributes={"axis": axis})


def stack(values: Sequence[Value], axis: int = 0) -> Value:
    """Returns the values, all of one shape, along a new axis.

    Example:
        >>> bw.stack([bw.input("x", ("batch", 3)), bw.input("y", ("batch", 3))], axis=1)
        <Concat: float32[batch, 2, 3]>
    """
    return concat([unsqueeze(value, axis) for value in values], axis)


def split(x: Value, parts: int | Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    """Returns consecutive parts of the value along `axis`: a number of equal ones, or ones of the given sizes.

    Example:
        >>> bw.split(bw.input("x", ("batch", 3)), [1, 2], axis=1)
        (<Split: float32[batch, 1]>, <Split: float32[batch, 2]>)
    """
    require_value("Split", x)
    axis = _shapes.axis_of(f"Split of {x.label}", axis, _shapes.rank_of("Split", x.shape))
    dims = x.shape or ()
    total = dims[axis]
    sizes: list[Dim]
    inputs, attributes = [x], dict[str, AttributeValue](axis=axis)
    if isinstance(parts, int):
        if parts < 1 or (isinstance(total, int) and total % parts):
            raise ShapeError(f"Split of {x!r}: axis {axis} does not divide into {parts} equal parts; give their sizes")
        sizes = [total // parts if isinstance(total, int) else None] * parts
        attributes["num_outputs"] = parts
    else:
        sizes = [int(size) for size in parts]
        if isinstance(total, int) and sum(parts) != total:
            raise ShapeError(f"Split of {x!r}: {list(parts)} do not add up to the {total} of axis {axis}")
        inputs.append(integers(list(parts)))
    node = Node("Split", tuple(inputs), attributes, outputs=len(sizes))
    shapes = [(*dims[:axis], size, *dims[axis + 1 :]) for size in sizes]
    return tuple(Value(node, x.dtype, shape, index=index) for index, shape in enumerate(shapes))


def take(x: Value, indices: Operand, axis: int = 0) -> Value:
    """Returns the slices of `x` along `axis` that the integers name; the axis is replaced by the shape of `indices`.

    Negative ones count from the end, as in numpy. One outside [-size, size) is an error of Forward.

    Example:
        >>> bw.take(bw.input("x", ("batch", 3)), [2, 0], axis=1)
        <Gather: float32[batch, 2]>
    """
    return gather(x, indices, axis)


def pad(x: Value, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Value:
    """Returns the value with `(before, after)` elements of `value` added to every axis; negative widths remove.

    Example:
        >>> bw.pad(bw.input("x", ("batch", 3)), [(0, 0), (1, 2)])
        <Pad: float32[batch, 6]>
    """
    require_value("Pad", x)
    if len(widths) != _shapes.rank_of("Pad", x.shape):
        raise ShapeError(f"Pad of {x!r}: {list(widths)} needs one (before, after) for each axis")
    shape = tuple(
        dim + before + after if isinstance(dim, int) else dim if before == after == 0 else None
        for dim, (before, after) in zip(x.shape or (), widths, strict=True)
    )
    sizes = [before for before, _ in widths] + [after for _, after in widths]
    return apply("Pad", [x, integers(sizes), as_constant(value, x.dtype, "the value of Pad")], x.dtype, shape)


def one_hot(indices: Value, depth: int, *, dtype: str = "float32") -> Value:
    """Returns a new last axis of size `depth` that is 1 at the index and 0 elsewhere.

    As in ONNX, a negative index counts from the end, and one outside [-depth, depth) gives zeros alone.

    Example:
        >>> bw.one_hot(bw.input("label", ("batch",), "int64"), 10)
        <OneHot: float32[batch, 10]>
    """
    require_value("OneHot", indices)
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"OneHot: {indices!r} is not of an integer type; convert it with bw.cast(value, 'int64')")
    kind = _arrays.dtype_of(dtype)
    shape = None if indices.shape is None else (*indices.shape, depth)
    return apply("OneHot", [indices, as_constant(depth, INT64), as_constant([0, 1], kind)], kind, shape)


def shape(x: Value) -> Value:
    """Returns the sizes of a value as Forward finds them: int64, one per axis. `x.shape` is what is known before.

    Example:
        >>> bw.shape(bw.input("x", ("batch", 3)))
        <Shape: int64[2]>
    """
    require_value("Shape", x)
    return apply("Shape", [x], INT64, (None if x.shape is None else len(x.shape),))


def _whole(size: Dim) -> Dim:
    if size is None or isinstance(size, str):
        return size
    if not isinstance(size, int | np.integer):
        raise GraphError(f"reshape: {size!r} is no size; use a number, -1, or the name of a size")
    return int(size)


def _listed(axis: int | Sequence[int]) -> list[int]:
    return [int(axis)] if isinstance(axis, int | np.integer) else [int(item) for item in axis]
