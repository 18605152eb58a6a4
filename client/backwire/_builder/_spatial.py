"""What convolution and pooling share: how options are spelled for each spatial axis, and what sizes come out."""

from collections.abc import Sequence

from backwire._builder import _shapes
from backwire._builder._shapes import Dim
from backwire._builder._value import Value, require_float
from backwire._errors import GraphError, ShapeError

Pair = int | tuple[int, int]
Triple = int | tuple[int, int, int]

_LAYOUTS = {
    1: "sequences; reshape it to [batch, channels, length]",
    2: "images; reshape it to [batch, channels, height, width]",
    3: "volumes; reshape it to [batch, channels, depth, height, width]",
}


def each(value: int | Sequence[int], axes: int, what: str, least: int = 1) -> list[int]:
    """Returns one number for each spatial axis; raises ShapeError unless each is at least `least`."""
    items = [value] * axes if isinstance(value, int) else [int(item) for item in value]
    if len(items) != axes or any(item < least for item in items):
        raise ShapeError(f"{what}={value!r} must be a number of at least {least}, or {axes} of them")
    return items


def require_spatial(op: str, x: Value, axes: int) -> None:
    """Raises DTypeError unless x is floating-point, and ShapeError unless it can be [batch, channels, *spatial]."""
    require_float(op, x)
    if x.shape is not None and len(x.shape) != axes + 2:
        raise ShapeError(f"{op}: {x!r} is no batch of {_LAYOUTS[axes]}")


def require_channels(op: str, x: Value) -> int:
    """Returns how many spatial axes x [batch, channels, *spatial] has; raises ShapeError when it has none."""
    require_float(op, x)
    axes = _shapes.rank_of(op, x.shape) - 2
    if axes < 1:
        raise ShapeError(f"{op}: {x!r} has no spatial axis; reshape it to [batch, channels, ...]")
    return axes


def pads_of(
    padding: int | Sequence[int] | str, kernel: Sequence[int], steps: Sequence[int], gaps: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns how much padding is before and after each axis; raises GraphError for "same" with a stride."""
    if not isinstance(padding, str):
        return [(item, item) for item in each(padding, len(kernel), "padding", least=0)]
    if padding != "same" or any(step != 1 for step in steps):
        raise GraphError(f"Conv: padding={padding!r} with stride {list(steps)}; use 'same' with stride 1, or numbers")
    totals = [gap * (size - 1) for size, gap in zip(kernel, gaps, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def windows(
    op: str,
    dims: Sequence[Dim],
    kernel: Sequence[int],
    steps: Sequence[int],
    gaps: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> tuple[Dim, ...]:
    """Returns at how many places the window fits along each axis."""
    return tuple(
        _shapes.window(op, dim, size, step, gap, before + after)
        for dim, size, step, gap, (before, after) in zip(dims, kernel, steps, gaps, pads, strict=True)
    )
