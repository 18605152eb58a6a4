"""Draws calls of operators on images: convolutions, pooling, interpolation."""

from typing import Any

import numpy as np
from tests.engine.drawing import Array, Draw, Shape, Strategy, call, ints

from backwire_server.engine.samples import Sample


def geometry(d: Draw, kernel: Shape, **more: Any) -> tuple[Shape, dict[str, Any]]:
    """Returns sizes that windows with this kernel fit into, and the attributes that place them."""
    rank = len(kernel)
    strides, dilations = d.per_axis(rank, 1, 3), d.per_axis(rank, 1, 2)
    auto = d.pick("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    pads = tuple(d.number(0, size - 1) for size in kernel * 2) if auto == "NOTSET" else None
    extents = [gap * (size - 1) + 1 for size, gap in zip(kernel, dilations, strict=True)]
    sizes = tuple(extent + d.number(0, 3) for extent in extents)
    given = {"strides": strides, "dilations": dilations, "pads": pads, "auto_pad": auto}
    return sizes, {**given, **more}


def conv(d: Draw) -> Sample:
    kernel, group = d.per_axis(d.number(1, 2), 1, 3), d.number(1, 2)
    sizes, attributes = geometry(d, kernel, group=group)
    inputs, outputs = group * d.number(1, 2), group * d.number(1, 2)
    bias = d.maybe(lambda: d.floats(outputs))
    w = d.floats(outputs, inputs // group, *kernel)
    return call(d.floats(d.number(1, 2), inputs, *sizes), w, bias, **attributes)


def conv_transpose(d: Draw) -> Sample:
    kernel, group = d.per_axis(d.number(1, 2), 1, 3), d.number(1, 2)
    rank = len(kernel)
    strides, dilations, sizes = d.per_axis(rank, 1, 3), d.per_axis(rank, 1, 2), d.per_axis(rank, 2, 3)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    how = d.pick("pads", "shape", "SAME_UPPER", "SAME_LOWER", "VALID")
    if how == "pads":
        attributes["pads"] = tuple(d.number(0, size // 2) for size in kernel * 2)
        attributes["output_padding"] = tuple(d.number(0, step - 1) for step in strides)
    elif how == "shape":
        attributes["output_shape"] = tuple(size * step for size, step in zip(sizes, strides, strict=True))
        attributes["auto_pad"] = d.pick("NOTSET", "SAME_UPPER")
    else:
        attributes["auto_pad"] = how
    inputs, outputs = group * d.number(1, 2), d.number(1, 2)
    bias = d.maybe(lambda: d.floats(outputs * group))
    return call(d.floats(d.number(1, 2), inputs, *sizes), d.floats(inputs, outputs, *kernel), bias, **attributes)


def pool(**choices: tuple[Any, ...]) -> Strategy:
    def strategy(d: Draw) -> Sample:
        kernel = d.per_axis(d.number(1, 2), 1, 3)
        sizes, attributes = geometry(d, kernel, kernel_shape=kernel)
        attributes["ceil_mode"] = d.flag() if attributes["auto_pad"] == "NOTSET" else None
        attributes.update((name, d.pick(*values)) for name, values in choices.items())
        return call(d.floats(d.number(1, 2), d.number(1, 2), *sizes), **attributes)

    return strategy


def global_pool(**choices: tuple[Any, ...]) -> Strategy:
    def strategy(d: Draw) -> Sample:
        attributes = {name: d.pick(None, *values) for name, values in choices.items()}
        return call(d.floats(d.number(1, 2), d.number(1, 2), *d.shape(1, 3)), **attributes)

    return strategy


def max_unpool(d: Draw) -> Sample:
    size, kernel, stride = d.number(1, 3), d.number(1, 3), d.number(1, 3)
    length = (size - 1) * stride + kernel
    places = np.array(d.order(length)[:size], np.int64).reshape(1, 1, size)
    larger = d.maybe(lambda: ints(1, 1, length + d.number(0, 2)))
    return call(d.floats(1, 1, size), places, larger, kernel_shape=(kernel,), strides=(stride,))


def resize(d: Draw) -> Sample:
    shape = d.shape(1, 2, 4)
    axes = tuple(d.axes(len(shape)))
    mode = d.pick("nearest", "linear", "cubic")
    way = d.pick("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
    attributes = {"axes": axes, "mode": mode, "coordinate_transformation_mode": way}
    if mode != "nearest":
        attributes.update(antialias=d.flag(), exclude_outside=d.flag())
    if mode == "nearest":
        attributes["nearest_mode"] = d.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if d.flag():
        scales = np.array([d.pick(0.6, 1.0, 1.5, 2.0) for _ in axes])
        scales = np.maximum(scales, [1.0 / shape[axis] for axis in axes])
        return call(d.floats(*shape), None, scales, static=(2,), **attributes)
    attributes["keep_aspect_ratio_policy"] = d.pick(None, "not_larger", "not_smaller")
    return call(d.floats(*shape), None, None, ints(*d.per_axis(len(axes), 2, 5)), **attributes)


def upsample(d: Draw) -> Sample:
    scales = np.array([1.0, *(d.pick(1.0, 1.5, 2.0) for _ in range(2))])
    return call(d.floats(1, *d.per_axis(2, 1, 3)), scales, static=(1,), mode=d.pick("nearest", "linear"))


def grid_sample(d: Draw) -> Sample:
    """The sizes are such that the places between elements, where the slope changes, are multiples of 1/8."""
    rank, batch, align = d.number(1, 2), d.number(1, 2), d.flag()
    mode = d.pick("linear", "nearest", *(["cubic"] if rank == 2 else []))
    sizes = [d.pick(2, 3, 5) if align else d.pick(2, 4) for _ in range(rank)]
    grid = d.floats(batch, *d.per_axis(rank, 1, 2), rank)
    attributes = {"padding_mode": d.pick("zeros", "border", "reflection"), "mode": mode, "align_corners": align}
    return call(d.floats(batch, d.number(1, 2), *sizes), grid, **attributes)


def affine_grid(d: Draw) -> Sample:
    rank, batch = d.number(2, 3), d.number(1, 2)
    size = ints(batch, 1, *d.per_axis(rank, 1, 3))
    return call(d.floats(batch, rank, rank + 1), size, align_corners=d.flag())


def outputs_of(sizes: Shape, kernel: Shape, attributes: dict[str, Any]) -> list[int]:
    """Returns how many windows there are along each axis."""
    pads = attributes["pads"] or (0,) * (2 * len(kernel))
    figures = zip(
        sizes, kernel, attributes["strides"], attributes["dilations"], pads, pads[len(kernel) :], strict=False
    )
    return [(size + a + b - gap * (k - 1) - 1) // step + 1 for size, k, step, gap, a, b in figures]


def col2im(d: Draw) -> Sample:
    block = d.per_axis(d.number(1, 2), 1, 2)
    sizes, attributes = geometry(d, block)
    attributes.pop("auto_pad")
    count = int(np.prod(outputs_of(sizes, block, attributes)))
    x = d.floats(d.number(1, 2), d.number(1, 2) * int(np.prod(block)), count)
    return call(x, ints(*sizes), ints(*block), **attributes)


def deform_conv(d: Draw) -> Sample:
    """The places lie between the elements of x, where the interpolation has one slope."""
    kernel, group, parts = d.per_axis(d.number(1, 2), 1, 2), d.number(1, 2), d.number(1, 2)
    sizes, attributes = geometry(d, kernel, group=group, offset_group=parts)
    attributes.pop("auto_pad")
    batch, channels, count = d.number(1, 2), group * parts, int(np.prod(kernel))
    outputs = outputs_of(sizes, kernel, attributes)
    offset = d.floats(batch, parts * count * len(kernel), *outputs, low=0.1, high=0.9) + d.number(-1, 0)
    weight, bias = d.floats(group, parts, *kernel), d.maybe(lambda: d.floats(group))
    mask = d.maybe(lambda: d.floats(batch, parts * count, *outputs))
    return call(d.floats(batch, channels, *sizes), weight, offset, bias, mask, **attributes)


def regions(d: Draw, count: int) -> Array:
    """Returns the corners of regions, which are constants: where one crosses an element, its slope changes."""
    first = d.floats(count, 2, low=-0.4, high=1.6)
    return np.concatenate([first, first + d.floats(count, 2, low=0.6, high=3.0)], 1)


def roi_align(d: Draw) -> Sample:
    images, count = d.number(1, 2), d.number(1, 2)
    attributes = {"output_height": d.number(1, 2), "output_width": d.number(1, 2), "sampling_ratio": d.number(0, 2)}
    attributes.update(mode=d.pick("avg", "max"), spatial_scale=d.pick(1.0, 0.55))
    attributes["coordinate_transformation_mode"] = d.pick("half_pixel", "output_half_pixel")
    x = d.floats(images, d.number(1, 2), *d.per_axis(2, 2, 4))
    return call(x, regions(d, count), abs(d.below(images, count)) % images, static=(1,), **attributes)


def max_roi_pool(d: Draw) -> Sample:
    images, count = d.number(1, 2), d.number(1, 2)
    numbers = (abs(d.below(images, count)) % images).astype(np.float64)[:, None]
    x = d.floats(images, d.number(1, 2), *d.per_axis(2, 2, 4))
    attributes = {"pooled_shape": d.per_axis(2, 1, 2), "spatial_scale": d.pick(1.0, 0.7)}
    return call(x, np.concatenate([numbers, regions(d, count)], 1), static=(1,), **attributes)


STRATEGIES: dict[str, Strategy] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool(storage_order=(0, 1)),
    "AveragePool": pool(count_include_pad=(0, 1)),
    "LpPool": pool(p=(1, 2, 3)),
    "GlobalMaxPool": global_pool(),
    "GlobalAveragePool": global_pool(),
    "GlobalLpPool": global_pool(p=(1, 2, 3)),
    "MaxUnpool": max_unpool,
    "Resize": resize,
    "Upsample": upsample,
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
    "Col2Im": col2im,
    "DeformConv": deform_conv,
    "MaxRoiPool": max_roi_pool,
    "RoiAlign": roi_align,
}
