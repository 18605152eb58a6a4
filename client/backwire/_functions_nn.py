"""Functions of networks: convolution, pooling and dropout. Images are [batch, channels, height, width]."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from backwire import _shapes
from backwire._arrays import INT64
from backwire._errors import GraphError, InvalidRequestError, ShapeError
from backwire._shapes import Dim, Shape
from backwire._value import AttributeValue, Operand, Value, apply, as_constant, as_values, require_float

Pair = int | tuple[int, int]


def conv(
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    scope: str = "",
) -> Value:
    """Returns the cross-correlation of `x` [batch, channels, *spatial] with `weight` [out, channels / groups, *kernel].

    Args:
        x: The images, or sequences, or volumes: any number of spatial axes.
        weight: The kernels.
        bias: One number for each output channel, or None.
        stride: How far the kernel moves, for all spatial axes or for each.
        padding: How many zeros surround `x` on both sides, for all axes or for each; or `"same"`, which keeps the size
            and needs a stride of 1.
        dilation: How far apart the elements of the kernel lie.
        groups: Into how many parts the channels are divided, each with kernels of its own.
        scope: The name of the layer, for the name of the node.
    """
    values = as_values("Conv", x, weight, *([bias] if bias is not None else []))
    require_float("Conv", x)
    if weight.shape is None or None in weight.shape[2:] or any(isinstance(dim, str) for dim in weight.shape):
        raise ShapeError(f"Conv: the kernel {weight!r} must have known sizes; declare it with numbers")
    kernel = [dim for dim in weight.shape[2:] if isinstance(dim, int)]
    steps, gaps = _each(stride, len(kernel), "stride"), _each(dilation, len(kernel), "dilation")
    pads = _padding(padding, kernel, steps, gaps)
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": kernel,
        "strides": steps,
        "pads": [*(before for before, _ in pads), *(after for _, after in pads)],
        "dilations": gaps,
        "group": groups,
    }
    shape = _conv_shape(x, weight, steps, gaps, pads, groups)
    return apply("Conv", values, x.dtype, shape, scope=scope, attributes=attributes)


def max_pool2d(x: Value, size: Pair, *, stride: Pair | None = None, padding: Pair = 0) -> Value:
    """Returns the greatest element of each window; `stride` is by default the size of the window."""
    return _pool("MaxPool", x, size, stride, padding, {})


def average_pool2d(
    x: Value, size: Pair, *, stride: Pair | None = None, padding: Pair = 0, count_padding: bool = False
) -> Value:
    """Returns the mean of each window; `stride` is by default the size of the window.

    With `count_padding` the zeros of the padding take part in the mean; without, only elements of `x` do.
    """
    return _pool("AveragePool", x, size, stride, padding, {"count_include_pad": int(count_padding)})


def global_average_pool2d(x: Value) -> Value:
    """Returns the mean of each channel: [batch, channels, height, width] becomes [batch, channels, 1, 1]."""
    _require_images("GlobalAveragePool", x)
    shape = None if x.shape is None else (*x.shape[:2], 1, 1)
    return apply("GlobalAveragePool", [x], x.dtype, shape)


def dropout(x: Value, rate: float = 0.5) -> Value:
    """Returns `x` with elements set to 0 at this rate and the others divided by 1 - rate (Srivastava et al. 2014).

    Only in train mode; in eval mode it returns `x`. The masks follow from the session's seed and the pass.
    """
    if not 0 <= rate < 1:
        raise InvalidRequestError(f"Dropout: a rate of {rate} leaves nothing to learn from; use 0 <= rate < 1")
    require_float("Dropout", x)
    return apply("Dropout", [x, as_constant(rate)], x.dtype, x.shape)


def roi_align(
    x: Value,
    regions: Operand,
    batch_indices: Value | ArrayLike,
    size: Pair,
    *,
    scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Value:
    """Returns the means of `x` in each cell of each region, [regions, channels, height, width] (He et al. 2017).

    As torchvision's `roi_align` with `aligned=True`. Gradients flow to `x` and to the regions.

    Args:
        x: The images.
        regions: [regions, 4]: x1, y1, x2, y2.
        batch_indices: [regions] int64: the image that each region is in.
        size: How many cells a region is divided into.
        scale: The size of `x` over that of the image that the regions were measured in.
        sampling_ratio: How many places along each axis of a cell `x` is interpolated at; 0 for one for each element.
    """
    _require_images("RoiAlign", x)
    images, cut = as_values("RoiAlign", x, regions)
    where = batch_indices if isinstance(batch_indices, Value) else as_constant(batch_indices, INT64)
    height, width = _each(size, 2, "size")
    attributes: dict[str, AttributeValue] = {
        "output_height": height,
        "output_width": width,
        "spatial_scale": float(scale),
        "sampling_ratio": sampling_ratio,
        "coordinate_transformation_mode": "half_pixel",
    }
    count = None if cut.shape is None else cut.shape[0]
    channels = None if x.shape is None else x.shape[1]
    shape = (count, channels, height, width)
    return apply("RoiAlign", [images, cut, where], x.dtype, shape, attributes=attributes)


def _pool(
    op: str, x: Value, size: Pair, stride: Pair | None, padding: Pair, attributes: dict[str, AttributeValue]
) -> Value:
    _require_images(op, x)
    kernel = _each(size, 2, "size")
    steps = kernel if stride is None else _each(stride, 2, "stride")
    pads = _each(padding, 2, "padding", least=0)
    shape: Shape = None
    if x.shape is not None:
        spatial = _windows(op, x.shape[2:], kernel, steps, [1, 1], [(each, each) for each in pads])
        shape = (*x.shape[:2], *spatial)
    settings = {"kernel_shape": kernel, "strides": steps, "pads": [*pads, *pads], **attributes}
    return apply(op, [x], x.dtype, shape, attributes=settings)


def _conv_shape(
    x: Value, weight: Value, steps: list[int], gaps: list[int], pads: list[tuple[int, int]], groups: int
) -> Shape:
    out, per_group, *kernel = [dim for dim in weight.shape or () if isinstance(dim, int)]
    if x.shape is None:
        return None
    if len(x.shape) != len(kernel) + 2:
        raise ShapeError(f"Conv: {x!r} and the kernel {weight!r} must have the same rank; reshape one of them")
    if groups < 1 or not _shapes.may_equal(x.shape[1], per_group * groups) or out % groups:
        raise ShapeError(
            f"Conv: {x!r} has {x.shape[1]} channels, but the kernel {weight!r} with groups={groups} takes "
            f"{per_group * groups}; both channel counts must be multiples of groups"
        )
    return (x.shape[0], out, *_windows("Conv", x.shape[2:], kernel, steps, gaps, pads))


def _windows(
    op: str,
    dims: Sequence[Dim],
    kernel: Sequence[int],
    steps: Sequence[int],
    gaps: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> tuple[Dim, ...]:
    return tuple(
        _shapes.window(op, dim, size, step, gap, before + after)
        for dim, size, step, gap, (before, after) in zip(dims, kernel, steps, gaps, pads, strict=True)
    )


def _padding(
    padding: int | Sequence[int] | str, kernel: Sequence[int], steps: Sequence[int], gaps: Sequence[int]
) -> list[tuple[int, int]]:
    if not isinstance(padding, str):
        return [(each, each) for each in _each(padding, len(kernel), "padding", least=0)]
    if padding != "same" or any(step != 1 for step in steps):
        raise GraphError(f"Conv: padding={padding!r} with stride {list(steps)}; use 'same' with stride 1, or numbers")
    totals = [gap * (size - 1) for size, gap in zip(kernel, gaps, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def _each(value: int | Sequence[int], axes: int, what: str, least: int = 1) -> list[int]:
    items = [value] * axes if isinstance(value, int) else [int(item) for item in value]
    if len(items) != axes or any(item < least for item in items):
        raise ShapeError(f"{what}={value!r} must be a number of at least {least}, or {axes} of them")
    return items


def _require_images(op: str, x: Value) -> None:
    require_float(op, x)
    if x.shape is not None and len(x.shape) != 4:
        raise ShapeError(f"{op}: {x!r} is no batch of images; reshape it to [batch, channels, height, width]")
