"""DeformConv: elements of x gathered at places that are moved by offsets, then a product with the weights."""

from math import prod
from typing import Any

import numpy as np

from backwire_server.engine.dims import concrete
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import common_dtype, require_equal, require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import Window, window_of

Ints = tuple[int, ...]


@function(
    "DeformConv",
    samples=[
        case(F(1, 1, 3, 3), F(1, 1, 2, 2), F(1, 8, 2, 2, low=0.1, high=0.9), F(1)),
        case(
            F(2, 2, 3, 4),
            F(2, 1, 2, 1),
            F(2, 8, 1, 3, low=-0.9, high=-0.1),
            None,
            F(2, 4, 1, 3),
            group=2,
            offset_group=2,
            pads=(1, 0, 0, 1),
            strides=(2, 2),
            dilations=(2, 1),
        ),
        case(F(1, 1, 5), F(2, 1, 2), F(1, 2, 4)),
    ],
)
def deform_conv(
    x: Value,
    weight: Value,
    offset: Value,
    bias: Value | None = None,
    mask: Value | None = None,
    *,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """Conv whose places in x [N, C, *spatial] are moved by the offsets, and what is found there times the mask.

    (Dai et al. 2017, Zhu et al. 2019.) `offset` is [N, offset_group * kernel elements * spatial axes, *output], the
    offsets along each axis of an element next to each other; `mask` is [N, offset_group * kernel elements, *output].
    Each offset group serves as many channels. Between elements x is interpolated linearly, beyond them it is 0.
    """
    common_dtype([each for each in (x, weight, offset, bias, mask) if each is not None], "f")
    require_rank(x, 3)
    require_rank(weight, x.rank, x.rank)
    require_rank(offset, x.rank, x.rank)
    kernel = concrete(weight.shape[2:])
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise InvalidAttribute(f"kernel_shape is {list(kernel_shape)}, but that of the weights is {list(kernel)}")
    sizes = concrete(x.shape[2:])
    window = window_of(sizes, kernel, strides, pads, dilations)
    outputs, count = concrete(window.output_sizes(sizes)), int(np.prod(kernel))
    channels = int(x.shape[1])
    _check_groups(channels, int(weight.shape[0]), group, offset_group)
    require_equal(int(weight.shape[1]) * group, channels, "the channels that the weights are for and those of x")
    require_equal(x.shape[0], offset.shape[0], "batch sizes of x and of the offsets")
    _check_guide(offset, offset_group * count * len(kernel), outputs, "offset")
    images = O.Reshape(x, [-1, channels // offset_group, *sizes])
    places = _places(offset, window, outputs, count)
    found = _interpolated(images, places, sizes)
    if mask is not None:
        _check_guide(mask, offset_group * count, outputs, "mask")
        found = found * O.Reshape(mask, [-1, 1, count * int(np.prod(outputs))])
    columns = O.Reshape(found, [-1, group, channels // group * count, int(np.prod(outputs))])
    filters = O.Reshape(weight, [group, -1, channels // group * count])
    result = O.Reshape(filters @ columns, [-1, int(weight.shape[0]), *outputs])
    return result if bias is None else result + O.Reshape(bias, [-1, *[1] * len(kernel)])


def _check_groups(channels: int, features: int, group: int, offset_group: int) -> None:
    for name, value, divided in (("group", group, (channels, features)), ("offset_group", offset_group, (channels,))):
        if value < 1 or any(each % value for each in divided):
            raise InvalidAttribute(f"{name} is {value}; it must divide {' and '.join(map(str, divided))} channels")


def _check_guide(guide: Value, channels: int, outputs: Ints, name: str) -> None:
    wanted = (channels, *outputs)
    if guide.rank != len(wanted) + 1 or concrete(guide.shape[1:]) != wanted:
        raise ShapeMismatch(f"{name} is {guide.type}; for this kernel it must be [N, {', '.join(map(str, wanted))}]")


def _places(offset: Value, window: Window, outputs: Ints, count: int) -> list[Value]:
    """Returns where along each axis of x each element of the kernel lies, [N groups, count * output elements]."""
    rank = len(window.kernel)
    total = int(np.prod(outputs))
    offset.builder.make(rank * total * prod(window.kernel))
    moved = O.Reshape(offset, [-1, count, rank, total])
    kernel, output = np.indices(window.kernel).reshape(rank, -1, 1), np.indices(outputs).reshape(rank, 1, -1)
    places = []
    for axis in range(rank):
        fixed = kernel[axis] * window.dilations[axis] + output[axis] * window.strides[axis] - window.pads[axis]
        along = O.Gather(moved, np.array(axis), axis=2)
        places.append(O.Reshape(along + offset.builder.constant(fixed.astype(offset.dtype)), [0, -1]))
    return places


def _interpolated(images: Value, places: list[Value], sizes: Ints) -> Value:
    """Returns images [N, C, *sizes] at the places [N, count * outputs] along each axis, as [N, C, count * outputs]."""
    index, weights = None, None
    for place, size in zip(places, sizes, strict=True):
        at = O.Unsqueeze(O.Clip(place, -1.0, float(size)), [2])
        low = O.Floor(at)
        way = at - low
        pair = O.Concat(low, low + 1.0, axis=2)
        inside = O.And(pair >= 0.0, pair <= float(size - 1))
        factor = O.Where(inside, O.Concat(1.0 - way, way, axis=2), 0.0)
        source = O.Cast(O.Clip(pair, 0.0, float(size - 1)), to="int64")
        index = source if index is None else _outer(O.Add, index * size, source)
        weights = factor if weights is None else _outer(O.Mul, weights, factor)
    assert index is not None
    assert weights is not None
    flat = O.Transpose(O.Reshape(images, [0, 0, -1]), perm=(0, 2, 1))
    picked = O.GatherND(flat, O.Unsqueeze(index, [-1]), batch_dims=1)
    mixed = O.Squeeze(O.Unsqueeze(weights, [2]) @ picked, [2])
    result: Value = O.Transpose(mixed, perm=(0, 2, 1))
    return result


def _outer(combine: Any, a: Value, b: Value) -> Value:
    """Returns every pairing along the last axis of values [N, places, each]."""
    return O.Reshape(combine(O.Unsqueeze(a, [3]), O.Unsqueeze(b, [2])), [0, 0, int(a.shape[2]) * int(b.shape[2])])
