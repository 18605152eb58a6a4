"""What the client knows of shapes: enough to size layers and to point at a mistake on the line that makes it.

A dimension is a size, the name of a size that every Forward chooses, or None where the client does not know; a shape is
a tuple of dimensions, or None where not even the rank is known. The server decides in the end.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import reduce

from backwire._errors import GraphError, ShapeError

Dim = int | str | None
Shape = tuple[Dim, ...] | None


def show(shape: Shape) -> str:
    """Returns the shape as people write it: `[batch, 64]`, with `?` for what is unknown."""
    if shape is None:
        return "[...]"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def may_equal(a: Dim, b: Dim) -> bool:
    """Tells whether two dimensions can be the same size."""
    return a == b or not (isinstance(a, int) and isinstance(b, int))


def merged(a: Dim, b: Dim) -> Dim:
    """Returns the better known of two dimensions that are the same size."""
    if isinstance(a, int) or b is None:
        return a
    return b if isinstance(b, int) or a is None or a == b else None


def broadcast(what: str, *shapes: Shape) -> Shape:
    """Returns the common shape under numpy's rules; raises ShapeError when there is none."""
    if None in shapes:
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, known), default=0)
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in known), strict=True)
    try:
        return tuple(reduce(_broadcast_dim, column) for column in columns)
    except _ClashError as clash:
        raise ShapeError(
            f"{what}: shapes {' and '.join(map(show, known))} do not broadcast, since {clash.args[0]} is neither "
            f"{clash.args[1]} nor 1; reshape one of them"
        ) from None


class _ClashError(Exception):
    pass


def _broadcast_dim(a: Dim, b: Dim) -> Dim:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise _ClashError(a, b)
    return a if isinstance(a, int) else b if isinstance(b, int) else None


def matmul(what: str, a: Shape, b: Shape) -> Shape:
    """Returns the shape of numpy's `a @ b`; raises ShapeError when the inner sizes differ."""
    if a is None or b is None:
        return None
    if not a or not b:
        raise ShapeError(f"{what}: shapes {show(a)} and {show(b)} include a scalar; use * to scale")
    inner = b[-2] if len(b) > 1 else b[0]
    if not may_equal(a[-1], inner):
        raise ShapeError(
            f"{what}: shapes {show(a)} and {show(b)} do not multiply, since {a[-1]} is not {inner}; "
            "transpose or reshape one"
        )
    leading = broadcast(what, a[:-2], b[:-2])
    return (leading or ()) + (a[-2:-1] if len(a) > 1 else ()) + (b[-1:] if len(b) > 1 else ())


def axis_of(what: str, axis: int, rank: int) -> int:
    """Returns the axis counted from the front; raises ShapeError when there is no such axis."""
    if not -rank <= axis < rank:
        raise ShapeError(f"{what}: axis {axis} does not exist in rank {rank}; use {-rank} to {rank - 1}")
    return axis % rank


def axes_of(what: str, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Returns the axes counted from the front; raises ShapeError when one does not exist or comes twice."""
    found = tuple(axis_of(what, axis, rank) for axis in axes)
    if len(set(found)) < len(found):
        raise ShapeError(f"{what}: axes {list(axes)} name an axis twice; name each once")
    return found


def reduced(shape: tuple[Dim, ...], axes: Sequence[int], keepdims: bool) -> Shape:
    """Returns the shape after a reduction over `axes`, which count from the front."""
    if keepdims:
        return tuple(1 if axis in axes else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in axes)


def reshaped(shape: Shape, target: Sequence[Dim]) -> tuple[list[int], Shape]:
    """Returns what ONNX's Reshape takes for `target`, and the resulting shape.

    Sizes in `target` may be numbers, one -1, and dimensions of `shape`, which stay what they are. Raises ShapeError
    when the numbers of elements cannot be equal.
    """
    sizes = [_size(shape, axis, dim, target) for axis, dim in enumerate(target)]
    if sizes.count(-1) > 1:
        raise ShapeError(f"reshape: {show(tuple(target))} leaves more than one size open; give numbers for all but one")
    wanted: list[Dim] = [None if dim == -1 else dim for dim in target]
    if shape is not None and -1 in target:
        wanted[list(target).index(-1)] = _left(shape, wanted, target)
    elif shape is not None and not _may_hold_the_same(shape, wanted):
        raise _wrong_count(shape, target)
    return sizes, tuple(wanted)


def _size(shape: Shape, axis: int, dim: Dim, target: Sequence[Dim]) -> int:
    """Returns a size for Reshape: 0 for the same as before, -1 for what is left."""
    if isinstance(dim, int):
        if dim < -1 or dim == 0:
            raise ShapeError(f"reshape: {show(tuple(target))} has the size {dim}; use sizes above 0, or -1")
        return dim
    if shape is not None and axis < len(shape) and shape[axis] == dim:
        return 0
    if dim is None or (shape is not None and dim not in shape and None not in shape):
        raise ShapeError(f"reshape: {dim!r} is no size of {show(shape)} that could stay; use a number, or -1")
    return -1


def _left(shape: tuple[Dim, ...], wanted: Sequence[Dim], target: Sequence[Dim]) -> Dim:
    """Returns the dimension that -1 stands for."""
    if None in shape:
        return None
    numbers = math.prod(dim for dim in shape if isinstance(dim, int))
    used = math.prod(dim for dim in wanted if isinstance(dim, int))
    symbols = Counter(dim for dim in shape if isinstance(dim, str))
    symbols.subtract(dim for dim in wanted if isinstance(dim, str))
    if all(count == 0 for count in symbols.values()):
        if numbers % used:
            raise _wrong_count(shape, target)
        return numbers // used
    names = [name for name, count in symbols.items() if count]
    return names[0] if numbers == used and len(names) == 1 and symbols[names[0]] == 1 else None


def _may_hold_the_same(shape: tuple[Dim, ...], wanted: Sequence[Dim]) -> bool:
    """Tells whether the shapes, the second without -1, can have the same number of elements."""
    held = math.prod(dim for dim in shape if isinstance(dim, int))
    asked = math.prod(dim for dim in wanted if isinstance(dim, int))
    names = Counter(dim for dim in wanted if not isinstance(dim, int))
    if names == Counter(dim for dim in shape if not isinstance(dim, int)) and None not in shape:
        return held == asked
    return bool(names) or held == 0 or asked % held == 0


def _wrong_count(shape: Shape, target: Sequence[Dim]) -> ShapeError:
    return ShapeError(
        f"reshape: {show(shape)} and {show(tuple(target))} have different numbers of elements; make the products equal"
    )


def window(op: str, size: Dim, kernel: int, stride: int, dilation: int, padding: int) -> Dim:
    """Returns how many places a window has along one axis; `padding` counts both sides."""
    if not isinstance(size, int):
        return None
    places = (size + padding - dilation * (kernel - 1) - 1) // stride + 1
    if places < 1:
        span = dilation * (kernel - 1) + 1
        raise ShapeError(f"{op}: a window of {span} does not fit into {size} with {padding} of padding; pad more")
    return places


def rank_of(what: str, shape: Shape) -> int:
    """Returns the rank; raises GraphError when it is unknown."""
    if shape is None:
        raise GraphError(f"{what}: the rank of its input is unknown; reshape it to a known rank first")
    return len(shape)


def product(dims: Sequence[Dim]) -> Dim:
    """Returns the product of sizes, None where it is not known."""
    others = [dim for dim in dims if dim != 1]
    if len(others) == 1:
        return others[0]
    sizes = [dim for dim in others if isinstance(dim, int)]
    return math.prod(sizes) if len(sizes) == len(others) else None


def concatenated(shapes: Sequence[tuple[Dim, ...]], axis: int) -> Shape:
    """Returns the shape of values one after another along the axis; raises ShapeError where others differ."""
    first = shapes[0]
    for other in shapes[1:]:
        fits = len(other) == len(first) and all(
            place == axis or may_equal(a, b) for place, (a, b) in enumerate(zip(first, other, strict=True))
        )
        if not fits:
            raise ShapeError(
                f"Concat: shapes {show(first)} and {show(other)} differ outside axis {axis}; "
                "make their other sizes equal"
            )
    sizes = [dims[axis] for dims in shapes]
    joined = sum(size for size in sizes if isinstance(size, int))
    length = joined if all(isinstance(size, int) for size in sizes) else None
    rest = [first[place] for place in range(len(first))]
    for dims in shapes[1:]:
        rest = [merged(a, b) for a, b in zip(rest, dims, strict=True)]
    return tuple(length if place == axis else dim for place, dim in enumerate(rest))
