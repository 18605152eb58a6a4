"""Operators that change shapes, not elements."""

import numpy as np

from backwire_server.engine.dims import Dim, Shape, broadcast, concrete, product, show
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.geometry import always_view, reshapes_to_view
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.registry import function, gradient, op, stored
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axes_of, same
from backwire_server.engine.values import O, Value


def reshaped(x: Shape, target: list[int], allowzero: int) -> Shape:
    """Returns the shape after Reshape: 0 keeps a dimension, -1 stands for what is left over."""
    if target.count(-1) > 1 or any(size < -1 for size in target):
        raise ShapeMismatch(f"the target shape {target} may have one -1 and no other negative size")
    if any(size == 0 and not allowzero and axis >= len(x) for axis, size in enumerate(target)):
        raise ShapeMismatch(f"the target shape {target} copies a dimension that {show(x)} does not have")
    copied = {axis for axis, size in enumerate(target) if size == 0 and not allowzero}
    dims: list[Dim] = [x[axis] if axis in copied else size for axis, size in enumerate(target)]
    total = product(x)
    if -1 in target:
        place = target.index(-1)
        ours = product(dim for axis, dim in enumerate(x) if axis not in copied)  # what is copied cancels, even if 0
        theirs = product(dim for axis, dim in enumerate(dims) if axis not in copied and axis != place)
        if isinstance(ours, int) and isinstance(theirs, int) and (ours % theirs if theirs else ours):
            raise ShapeMismatch(f"the elements of shape {show(x)} do not fill shape {target}")
        dims[place] = ours // theirs if theirs != 0 else 0
    elif isinstance(total, int) and isinstance(rest := product(dims), int) and total != rest:
        raise ShapeMismatch(f"shape {show(x)} has {total} elements and the target shape {target} has {rest}")
    return tuple(dims)


def _reshape_type(x: Value, shape: Value, *, allowzero: int = 0) -> TensorType:
    return TensorType(x.dtype, reshaped(x.shape, shape.known.tolist(), allowzero))


@op(
    "Reshape",
    shape=_reshape_type,
    samples=[case(F(2, 6), I(3, -1)), case(F(2, 6), I(0, 2, 3)), case(F(2, 0), I(0, 5), allowzero=1)],
    view=reshapes_to_view,
)
def reshape(x: Array, shape: Array, *, allowzero: int = 0) -> Array:
    """x in another shape, in C order; 0 copies a dimension (unless `allowzero`), one -1 takes what is left."""
    return x.reshape(concrete(reshaped(x.shape, shape.tolist(), allowzero)))


@gradient("Reshape")
def _(g: Value, y: Value, x: Value, shape: Value, *, allowzero: int) -> Value:
    return O.Reshape(g, list(x.shape), allowzero=1)


def _flatten_type(x: Value, *, axis: int = 1) -> TensorType:
    if not -x.rank <= axis <= x.rank:
        raise InvalidAttribute(f"axis {axis} is out of range for rank {x.rank}; use {-x.rank} to {x.rank}")
    at = axis + x.rank if axis < 0 else axis
    return TensorType(x.dtype, (product(x.shape[:at]), product(x.shape[at:])))


@op(
    "Flatten",
    shape=_flatten_type,
    samples=[case(F(2, 3, 2)), case(F(2, 3, 2), axis=-1), case(F(2, 3), axis=0)],
    view=reshapes_to_view,
)
def flatten(x: Array, *, axis: int = 1) -> Array:
    """x as a matrix: the axes before `axis` become its rows, the others its columns."""
    at = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:at])), int(np.prod(x.shape[at:])))


@gradient("Flatten")
def _(g: Value, y: Value, x: Value, *, axis: int) -> Value:
    return O.Reshape(g, list(x.shape), allowzero=1)


def _transpose_type(x: Value, *, perm: tuple[int, ...] | None = None) -> TensorType:
    order = perm or tuple(reversed(range(x.rank)))
    if sorted(order) != list(range(x.rank)):
        raise InvalidAttribute(f"perm {list(order)} must name each of the {x.rank} axes once")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in order))


@op(
    "Transpose",
    shape=_transpose_type,
    samples=[case(F(2, 3)), case(F(2, 3, 4), perm=(1, 2, 0)), case(F(3))],
    view=always_view,
)
def transpose(x: Array, *, perm: tuple[int, ...] | None = None) -> Array:
    """x with its axes in the order `perm`, reversed by default."""
    return x.transpose(perm)


@gradient("Transpose")
def _(g: Value, y: Value, x: Value, *, perm: tuple[int, ...] | None) -> Value:
    order = perm or tuple(reversed(range(x.rank)))
    return O.Transpose(g, perm=tuple(order.index(axis) for axis in range(x.rank)))


def _squeeze_type(x: Value, axes: Value | None = None) -> TensorType:
    if axes is not None:
        gone = axes_of(axes.known.ravel().tolist(), x.rank)
        for axis in gone:
            if x.shape[axis] != 1 and isinstance(x.shape[axis], int):
                raise ShapeMismatch(f"axis {axis} has size {x.shape[axis]}; only axes of size 1 can be squeezed")
    else:
        gone = tuple(axis for axis, size in enumerate(x.sizes) if size == 1)
    return TensorType(x.dtype, tuple(dim for axis, dim in enumerate(x.shape) if axis not in gone))


@op("Squeeze", shape=_squeeze_type, samples=[case(F(2, 1, 3, 1), I(1, -1)), case(F(1, 2, 1))], view=always_view)
def squeeze(x: Array, axes: Array | None = None) -> Array:
    """x without the given axes of size 1, or without all of them."""
    return np.squeeze(x, None if axes is None else tuple(axes.ravel().tolist()))


@gradient("Squeeze")
def _(g: Value, y: Value, x: Value, axes: Value | None = None) -> Value:
    return O.Reshape(g, list(x.shape), allowzero=1)


def _unsqueeze_type(x: Value, axes: Value) -> TensorType:
    places = axes_of(axes.known.ravel().tolist(), x.rank + axes.known.size)
    rest = iter(x.shape)
    return TensorType(x.dtype, tuple(1 if axis in places else next(rest) for axis in range(x.rank + len(places))))


@op(
    "Unsqueeze",
    shape=_unsqueeze_type,
    samples=[case(F(2, 3), I(0, -1)), case(F(), I(0)), case(np.ones(2), np.array(1))],
    view=always_view,
)
def unsqueeze(x: Array, axes: Array) -> Array:
    """x with axes of size 1 at the given places of the result."""
    return np.expand_dims(x, tuple(axes.ravel().tolist()))


@gradient("Unsqueeze")
def _(g: Value, y: Value, x: Value, axes: Value) -> Value:
    return O.Reshape(g, list(x.shape), allowzero=1)


def _expand_type(x: Value, shape: Value) -> TensorType:
    return TensorType(x.dtype, broadcast(x.shape, [int(size) for size in shape.known.tolist()]))


@op("Copy", shape=same("fib"), samples=[case(F(2, 3))], internal=True)
def copy(x: Array, *, out: Array | None = None) -> Array:
    """x in memory of its own."""
    return stored(x, np.empty(x.shape, x.dtype) if out is None else out)


@gradient("Copy")
def _(g: Value, y: Value, x: Value) -> Value:
    return g


@op(
    "Expand",
    shape=_expand_type,
    samples=[case(F(3, 1), I(2, 1, 4)), case(F(2, 3), I(1)), case(F(), I(2, 2))],
    view=always_view,
)
def expand(x: Array, shape: Array) -> Array:
    """x broadcast to a common shape with `shape`."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist())))


@gradient("Expand")
def _(g: Value, y: Value, x: Value, shape: Value) -> Value:
    return g


@function("Shape", samples=[case(F(2, 3, 4)), case(F(2, 3, 4), start=1, end=-1)])
def shape_of(x: Value, *, start: int = 0, end: int | None = None) -> Value:
    """The shape of x, or a slice of it, as int64."""
    return x.builder.constant(np.array(concrete(x.shape[start:end]), np.int64))


@function("Size", samples=[case(F(2, 3))])
def size_of(x: Value) -> Value:
    """The number of elements of x, as int64."""
    return x.builder.constant(np.array(int(product(x.shape)), np.int64))
