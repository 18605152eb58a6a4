"""Draws calls of operators that move elements: shapes, indices, slices, scatters."""

import numpy as np
from tests.engine.drawing import Array, Draw, Shape, Strategy, call, ints

from backwire_server.engine.samples import Sample


def concat(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    shapes = [[*shape] for _ in range(d.number(1, 3))]
    for each in shapes:
        each[axis] = d.number(0, 3)
    return call(*(d.floats(*each) for each in shapes), axis=axis)


def split(d: Draw) -> Sample:
    shape, parts = [*d.shape(1)], d.number(1, 3)
    axis = d.axis(len(shape))
    if d.flag():
        sizes = d.per_axis(parts, 0, 2)
        shape[axis] = sum(sizes)
        return call(d.floats(*shape), ints(*sizes), axis=axis, outputs=parts)
    shape[axis] = parts * d.number(1, 2)
    return call(d.floats(*shape), axis=axis, outputs=parts, num_outputs=d.pick(None, parts))


def slice_(d: Draw) -> Sample:
    shape = d.shape(1, 3, 5)
    axes = d.axes(len(shape), 0)
    steps = [d.pick(-2, -1, 1, 2) for _ in axes]
    starts, ends = ([d.pick(d.number(-6, 6), -(2**63), 2**63 - 1) for _ in axes] for _ in range(2))
    return call(d.floats(*shape), ints(*starts), ints(*ends), ints(*axes), ints(*steps))


def reshape(d: Draw) -> Sample:
    shape = d.shape()
    target = [shape[place] for place in d.order(len(shape))] or [1]
    if d.flag():
        target[d.number(0, len(target) - 1)] = -1
    return call(d.floats(*shape), ints(*target))


def flatten(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.floats(*shape), axis=d.number(-len(shape), len(shape)))


def transpose(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.floats(*shape), perm=d.pick(None, d.order(len(shape))))


def squeeze(d: Draw) -> Sample:
    shape = tuple(d.pick(1, 1, 2) for _ in range(d.number(1, 4)))
    ones = [place - d.pick(0, len(shape)) for place, size in enumerate(shape) if size == 1]
    return call(d.floats(*shape), ints(*ones[: d.number(1, len(ones))]) if ones and d.flag() else None)


def unsqueeze(d: Draw) -> Sample:
    shape, more = d.shape(), d.number(1, 2)
    rank = len(shape) + more
    return call(d.floats(*shape), ints(*(axis - rank * d.flag() for axis in d.order(rank)[:more])))


def expand(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.floats(*shape), ints(*d.broadcast_with(shape)))


def tile(d: Draw) -> Sample:
    shape = d.shape()
    return call(d.floats(*shape), ints(*d.per_axis(len(shape), 0, 2)))


def gather(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    return call(d.floats(*shape), d.below(shape[axis], *d.shape(0, 2)), axis=axis)


def within(d: Draw, shape: Shape, axis: int) -> Shape:
    """Returns a shape no larger than the other but along the axis."""
    sizes = [d.number(1, size) for size in shape]
    sizes[axis] = d.number(1, 3)
    return tuple(sizes)


def gather_elements(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    return call(d.floats(*shape), d.below(shape[axis], *within(d, shape, axis)), axis=axis)


def named(d: Draw, shape: Shape, depth: int, *places: int) -> Array:
    """Returns indices of so many first axes of the shape, which may repeat."""
    columns = [d.below(size, *places, 1) for size in shape[:depth]]
    return np.concatenate(columns, -1)


def gather_nd(d: Draw) -> Sample:
    batch, shape = d.shape(0, 1), d.shape(1)
    places = named(d, shape, d.number(1, len(shape)), *batch, *d.shape(0 if batch else 1, 1))
    return call(d.floats(*batch, *shape), places, batch_dims=len(batch))


def scatter_elements(d: Draw) -> Sample:
    shape, reduction = d.shape(1), d.pick("none", "add", "mul", "max", "min")
    axis = d.axis(len(shape))
    sizes = within(d, shape, axis)
    if reduction == "none":  # without repetitions
        sizes = (*sizes[: axis % len(shape)], d.number(1, shape[axis]), *sizes[axis % len(shape) + 1 :])
        flat = [d.order(shape[axis])[: sizes[axis]] for _ in range(int(np.prod(sizes)) // sizes[axis])]
        moved = [size for place, size in enumerate(sizes) if place != axis % len(shape)]
        indices = np.moveaxis(np.array(flat, np.int64).reshape(*moved, sizes[axis]), -1, axis)
    else:
        indices = d.below(shape[axis], *sizes)
    return call(d.floats(*shape), indices, d.floats(*sizes), axis=axis, reduction=reduction)


def former_scatter(d: Draw) -> Sample:
    size, columns = d.number(1, 3), d.number(1, 3)
    rows = d.order(size)[: d.number(1, size)]
    indices = np.repeat(np.array(rows, np.int64)[:, None], columns, 1)
    return call(d.floats(size, columns), indices, d.floats(len(rows), columns), axis=d.pick(None, -2))


def scatter_nd(d: Draw) -> Sample:
    shape, reduction = d.shape(1), d.pick("none", "add", "mul", "max", "min")
    depth = d.number(1, len(shape))
    count = d.number(1, 3)
    places = named(d, shape, depth, count)
    if reduction == "none":  # without repetitions
        places = np.unique(places % np.array(shape[:depth]), axis=0)
    return call(d.floats(*shape), places, d.floats(len(places), *shape[depth:]), reduction=reduction)


def tensor_scatter(d: Draw) -> Sample:
    batch, steps, size = d.number(1, 2), d.number(2, 4), d.number(1, 2)
    new, mode = d.number(1, steps), d.pick("linear", "circular")
    latest = steps - 1 if mode == "circular" else steps - new
    first = d.maybe(lambda: np.array([d.number(0, latest) for _ in range(batch)], np.int64))
    return call(d.floats(batch, steps, size), d.floats(batch, new, size), first, axis=d.pick(1, -2), mode=mode)


def top_k(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    count = ints(d.number(0, shape[axis]))
    return call(d.floats(*shape), count, outputs=2, axis=axis, largest=d.flag(), sorted=d.flag())


def compress(d: Draw) -> Sample:
    shape = d.shape(1)
    axis = d.pick(None, d.axis(len(shape)))
    length = shape[axis] if axis is not None else int(np.prod(shape))
    return call(d.floats(*shape), d.bools(d.number(1, length)), axis=axis)


def trilu(d: Draw) -> Sample:
    return call(d.floats(*d.shape(2, 4)), d.maybe(lambda: np.array(d.number(-4, 4))), upper=d.flag())


def one_hot(d: Draw) -> Sample:
    indices, depth = d.shape(0, 2), d.number(1, 3)
    return call(d.below(depth, *indices), np.array(depth), d.floats(2), axis=d.axis(len(indices) + 1))


def blocks(to_depth: bool) -> Strategy:
    def strategy(d: Draw) -> Sample:
        size, channels, (height, width) = d.number(1, 2), d.number(1, 2), d.per_axis(2, 1, 2)
        if to_depth:
            return call(d.floats(d.number(1, 2), channels, size * height, size * width), blocksize=size)
        x = d.floats(d.number(1, 2), channels * size**2, height, width)
        return call(x, blocksize=size, mode=d.pick("DCR", "CRD"))

    return strategy


def reverse_sequence(d: Draw) -> Sample:
    shape, batch_axis = (d.number(1, 3), d.number(1, 3), *d.shape(0, 1)), d.flag()
    time = 1 - batch_axis
    lengths = [d.number(0, shape[time]) for _ in range(shape[batch_axis])]
    return call(d.floats(*shape), ints(*lengths), batch_axis=batch_axis, time_axis=time)


def center_crop_pad(d: Draw) -> Sample:
    shape = d.shape(1, 3, 4)
    axes = d.axes(len(shape))
    return call(d.floats(*shape), ints(*d.per_axis(len(axes), 1, 5)), axes=tuple(axes))


def pad(d: Draw) -> Sample:
    shape = d.shape(1)
    mode = d.pick("constant", "reflect", "edge", "wrap")
    axes = d.axes(len(shape))
    most = [shape[axis] - 1 if mode == "reflect" else 2 for axis in axes]
    before, after = ([d.number(0 if mode != "constant" else -1, limit) for limit in most] for _ in range(2))
    if mode == "constant":  # what is cut must be there
        before, after = (
            [max(each, -(shape[a] // 2)) for each, a in zip(cut, axes, strict=True)] for cut in (before, after)
        )
    value = d.maybe(lambda: d.floats()) if mode == "constant" else None
    return call(d.floats(*shape), ints(*before, *after), value, ints(*axes), mode=mode)


STRATEGIES: dict[str, Strategy] = {
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Scatter": former_scatter,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "Compress": compress,
    "Trilu": trilu,
    "OneHot": one_hot,
    "DepthToSpace": blocks(False),
    "SpaceToDepth": blocks(True),
    "ReverseSequence": reverse_sequence,
    "CenterCropPad": center_crop_pad,
    "Pad": pad,
}
