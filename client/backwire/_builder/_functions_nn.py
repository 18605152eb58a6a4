"""Functions of networks: convolution, its transpose, dropout, and means of regions of images."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from backwire._arrays import INT64
from backwire._builder import _shapes
from backwire._builder._node import AttributeValue
from backwire._builder._shapes import Dim, Shape
from backwire._builder._spatial import Pair, each, pads_of, require_spatial, windows
from backwire._builder._value import Operand, Value, apply, as_constant, as_values, require_float
from backwire._errors import InvalidRequestError, ShapeError


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

    Example:
        >>> signal = bw.input("signal", ("batch", 1, 100))
        >>> bw.conv(signal, bw.parameter("kernel", (4, 1, 5)), stride=2)
        <Conv: float32[batch, 4, 48]>
    """
    values = as_values("Conv", x, weight, *([bias] if bias is not None else []))
    require_float("Conv", x)
    kernel = _kernel_of("Conv", weight)
    steps, gaps = each(stride, len(kernel), "stride"), each(dilation, len(kernel), "dilation")
    pads = pads_of(padding, kernel, steps, gaps)
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": kernel,
        "strides": steps,
        "pads": [*(before for before, _ in pads), *(after for _, after in pads)],
        "dilations": gaps,
        "group": groups,
    }
    shape = _conv_shape(x, weight, steps, gaps, pads, groups)
    return apply("Conv", values, x.dtype, shape, scope=scope, attributes=attributes)


def conv_transpose(
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    scope: str = "",
) -> Value:
    """Returns the gradient of a convolution applied to `x`, which spreads each element over a window.

    The shapes are [batch, channels, *spatial] and, of the weight, [channels, out / groups, *kernel]; each spatial size
    becomes (size - 1)·stride + dilation·(kernel - 1) + 1 + output_padding - 2·padding (Zeiler et al. 2010).

    Args:
        x: The images, or sequences, or volumes: any number of spatial axes.
        weight: The kernels.
        bias: One number for each output channel, or None.
        stride: How far apart the windows of neighbouring elements are, for all spatial axes or for each.
        padding: How much is cut off the result on both sides.
        output_padding: How much is added to the result at the end, to choose between the sizes that a convolution with
            this stride takes to the size of `x`; less than the stride or the dilation.
        dilation: How far apart the elements of the kernel lie.
        groups: Into how many parts the channels are divided, each with kernels of its own.
        scope: The name of the layer, for the name of the node.

    Example:
        >>> images = bw.input("images", ("batch", 8, 14, 14))
        >>> bw.conv_transpose(images, bw.parameter("kernel", (8, 1, 4, 4)), stride=2, padding=1)
        <ConvTranspose: float32[batch, 1, 28, 28]>
    """
    values = as_values("ConvTranspose", x, weight, *([bias] if bias is not None else []))
    require_float("ConvTranspose", x)
    kernel = _kernel_of("ConvTranspose", weight)
    axes = len(kernel)
    steps, gaps = each(stride, axes, "stride"), each(dilation, axes, "dilation")
    cut, beyond = each(padding, axes, "padding", least=0), each(output_padding, axes, "output_padding", least=0)
    if any(more >= max(step, gap) for more, step, gap in zip(beyond, steps, gaps, strict=True)):
        raise ShapeError(f"output_padding={output_padding!r} must be less than the stride {steps} or dilation {gaps}")
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": kernel,
        "strides": steps,
        "pads": [*cut, *cut],
        "output_padding": beyond,
        "dilations": gaps,
        "group": groups,
    }
    sizes = _spread_sizes(x, kernel, steps, gaps, cut, beyond)
    shape = _transposed_shape(x, weight, sizes, groups)
    return apply("ConvTranspose", values, x.dtype, shape, scope=scope, attributes=attributes)


def dropout(x: Value, rate: float = 0.5) -> Value:
    """Returns `x` with elements set to 0 at this rate and the others divided by 1 - rate (Srivastava et al. 2014).

    Only in train mode; in eval mode it returns `x`. The masks follow from the session's seed and the pass.

    Example:
        >>> bw.dropout(bw.input("x", ("batch", 8)), 0.1)
        <Dropout: float32[batch, 8]>
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

    Example:
        >>> images, regions = bw.input("images", (2, 8, 32, 32)), bw.input("regions", ("found", 4))
        >>> bw.roi_align(images, regions, bw.input("which", ("found",), "int64"), 7).shape
        ('found', 8, 7, 7)
    """
    require_spatial("RoiAlign", x, 2)
    images, cut = as_values("RoiAlign", x, regions)
    where = batch_indices if isinstance(batch_indices, Value) else as_constant(batch_indices, INT64)
    height, width = each(size, 2, "size")
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


def _kernel_of(op: str, weight: Value) -> list[int]:
    if weight.shape is None or None in weight.shape[2:] or any(isinstance(dim, str) for dim in weight.shape):
        raise ShapeError(f"{op}: the kernel {weight!r} must have known sizes; declare it with numbers")
    return [dim for dim in weight.shape[2:] if isinstance(dim, int)]


def _conv_shape(
    x: Value, weight: Value, steps: list[int], gaps: list[int], pads: list[tuple[int, int]], groups: int
) -> Shape:
    out, per_group, *kernel = [dim for dim in weight.shape or () if isinstance(dim, int)]
    if x.shape is None:
        return None
    _check_channels("Conv", x, weight, per_group * groups, groups, out)
    return (x.shape[0], out, *windows("Conv", x.shape[2:], kernel, steps, gaps, pads))


def _spread_sizes(
    x: Value, kernel: list[int], steps: list[int], gaps: list[int], cut: list[int], beyond: list[int]
) -> list[Dim] | None:
    if x.shape is None or len(x.shape) != len(kernel) + 2:
        return None
    extents = [gap * (size - 1) + 1 + more for size, gap, more in zip(kernel, gaps, beyond, strict=True)]
    return [
        (size - 1) * step + extent - 2 * pad if isinstance(size, int) else None
        for size, step, extent, pad in zip(x.shape[2:], steps, extents, cut, strict=True)
    ]


def _transposed_shape(x: Value, weight: Value, sizes: list[Dim] | None, groups: int) -> Shape:
    channels, per_group, *_ = [dim for dim in weight.shape or () if isinstance(dim, int)]
    if x.shape is None:
        return None
    _check_channels("ConvTranspose", x, weight, channels, groups, channels)
    if any(isinstance(size, int) and size < 1 for size in sizes or ()):
        raise ShapeError(f"ConvTranspose of {x!r}: the padding cuts off all there is; pad less")
    return (x.shape[0], per_group * groups, *(sizes or ()))


def _check_channels(op: str, x: Value, weight: Value, taken: int, groups: int, divided: int) -> None:
    assert x.shape is not None
    assert weight.shape is not None
    if len(x.shape) != len(weight.shape):
        raise ShapeError(f"{op}: {x!r} and the kernel {weight!r} must have the same rank; reshape one of them")
    if groups < 1 or not _shapes.may_equal(x.shape[1], taken) or divided % groups:
        raise ShapeError(
            f"{op}: {x!r} has {x.shape[1]} channels, but the kernel {weight!r} with groups={groups} takes {taken}; "
            "both channel counts must be multiples of groups"
        )
