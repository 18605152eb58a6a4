"""Operators that repeat, mask or reorder elements, and those that make tensors from shapes and numbers."""

from typing import Any

import numpy as np

from backwire_server.engine.dims import concrete
from backwire_server.engine.errors import InvalidAttribute, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Array
from backwire_server.engine.ops.indexing import axes_in_order
from backwire_server.engine.ops.logic import dtype_named
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import axis_of, common_dtype, require_rank
from backwire_server.engine.values import O, Value


@function("Tile", samples=[case(F(2, 3), I(2, 1)), case(F(2), I(3)), case(F(1, 2, 2), I(1, 2, 3))])
def tile(x: Value, repeats: Value) -> Value:
    """x repeated so many times along each axis."""
    times = repeats.known.tolist()
    if len(times) != x.rank or min(times, default=0) < 0:
        raise ShapeMismatch(f"repeats is {times}; it needs {x.rank} entries of at least 0")
    pairs = list(zip(times, x.shape, strict=True))
    apart = O.Reshape(x, [each for _, dim in pairs for each in (1, dim)], allowzero=1)
    spread = O.Expand(apart, [each for pair in pairs for each in pair])
    return O.Reshape(spread, [count * dim for count, dim in pairs], allowzero=1)


def _blocks(x: Value, blocksize: int) -> tuple[int, int, int]:
    require_rank(x, 4, 4)
    if blocksize < 1:
        raise InvalidAttribute(f"blocksize is {blocksize}; it must be at least 1")
    channels, height, width = concrete(x.shape[1:])
    return channels, height, width


@function("DepthToSpace", samples=[case(F(1, 8, 2, 3), blocksize=2), case(F(2, 8, 1, 2), blocksize=2, mode="CRD")])
def depth_to_space(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Channels of x [N, C, H, W] laid out as blocks of blocksize x blocksize: [N, C/b^2, H b, W b].

    In mode DCR the place in the block varies slowest among the channels, in CRD (PixelShuffle) fastest.
    """
    channels, height, width = _blocks(x, blocksize)
    if channels % blocksize**2:
        raise ShapeMismatch(f"{channels} channels do not make blocks of {blocksize} x {blocksize}")
    depth = channels // blocksize**2
    orders = {"DCR": (0, 3, 4, 1, 5, 2), "CRD": (0, 1, 4, 2, 5, 3)}
    if mode not in orders:
        raise InvalidAttribute(f"mode is {mode!r}; use DCR or CRD")
    inner = [blocksize, blocksize, depth] if mode == "DCR" else [depth, blocksize, blocksize]
    split = O.Reshape(x, [0, *inner, height, width])
    return O.Reshape(O.Transpose(split, perm=orders[mode]), [0, depth, height * blocksize, width * blocksize])


@function("SpaceToDepth", samples=[case(F(1, 2, 4, 6), blocksize=2), case(F(2, 1, 3, 3), blocksize=3)])
def space_to_depth(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Blocks of blocksize x blocksize of x [N, C, H, W] laid out as channels: [N, C b^2, H/b, W/b].

    The inverse of DepthToSpace in the same mode.
    """
    channels, height, width = _blocks(x, blocksize)
    if height % blocksize or width % blocksize:
        raise ShapeMismatch(f"{height} x {width} is not a whole number of blocks of {blocksize} x {blocksize}")
    orders = {"DCR": (0, 3, 5, 1, 2, 4), "CRD": (0, 1, 3, 5, 2, 4)}
    if mode not in orders:
        raise InvalidAttribute(f"mode is {mode!r}; use DCR or CRD")
    high, wide = height // blocksize, width // blocksize
    split = O.Reshape(x, [0, channels, high, blocksize, wide, blocksize])
    return O.Reshape(O.Transpose(split, perm=orders[mode]), [0, channels * blocksize**2, high, wide])


@function("Trilu", samples=[case(F(3, 3)), case(F(2, 3, 4), np.array(1), upper=0), case(F(3, 2), np.array(-1))])
def trilu(x: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    """The upper triangle of the matrices in the last two axes, or the lower, zeros elsewhere; k moves the diagonal."""
    require_rank(x, 2)
    rows, columns = concrete(x.shape[-2:])
    offset = 0 if k is None else int(k.known.reshape(()))
    x.builder.make(rows * columns)
    below = np.tri(rows, columns, offset - 1 if upper else offset, dtype=np.bool_)
    return O.Where(x.builder.constant(~below if upper else below), x, x.like(0))


@function(
    "ReverseSequence",
    samples=[case(F(4, 3), I(2, 4, 1)), case(F(2, 3, 2), I(3, 1), batch_axis=0, time_axis=1)],
)
def reverse_sequence(x: Value, sequence_lens: Value, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    """x with the first `sequence_lens[b]` steps of each sequence b in reverse order."""
    require_rank(x, 2)
    batch, time = axis_of(batch_axis, x.rank), axis_of(time_axis, x.rank)
    if batch == time:
        raise InvalidAttribute("batch_axis and time_axis must differ")
    lengths = O.Unsqueeze(O.Cast(sequence_lens, to="int64"), [place for place in range(x.rank) if place != batch])
    steps = np.arange(x.builder.make(int(x.shape[time]))).reshape(
        [-1 if place == time else 1 for place in range(x.rank)]
    )
    places = x.builder.constant(steps)
    source = O.Where(places < lengths, lengths - 1 - places, places)
    return O.GatherElements(x, O.Expand(source, list(x.shape)), axis=time)


@function(
    "CenterCropPad",
    samples=[case(F(4, 3), I(2, 6)), case(F(2, 5, 3), I(2), axes=(1,)), case(F(3, 2), I(4, 1), axes=(-1, 0))],
)
def center_crop_pad(x: Value, shape: Value, *, axes: tuple[int, ...] | None = None) -> Value:
    """The middle of x, in the given sizes of the axes, or of all; where these are larger, with zeros around."""
    places = range(x.rank) if axes is None else axes_in_order(axes, x.rank)
    targets = shape.known.tolist()
    if len(targets) != len(places):
        raise ShapeMismatch(f"shape is {targets}; it needs {len(places)} entries, one for each axis")
    before, after = [0] * x.rank, [0] * x.rank
    for place, target in zip(places, targets, strict=True):
        more = target - int(x.shape[place])
        before[place] = more // 2 if more > 0 else -(-more // 2)
        after[place] = more - before[place]
    return O.ConstantPad(x, x.like(0), pads=(*before, *after))


def _scalar(value: Value) -> Array:
    return value.known.reshape(())


@function(
    "Range",
    samples=[case(np.array(1), np.array(9), np.array(3)), case(*map(np.array, (3.0, 0.5, -0.5)), static=(0, 1, 2))],
)
def range_(start: Value, limit: Value, delta: Value) -> Value:
    """start, start + delta, start + 2 delta, ... as long as they are short of the limit."""
    dtype = common_dtype([start, limit, delta], "fi")
    first, last, step = (_scalar(each).item() for each in (start, limit, delta))
    if step == 0:
        raise InvalidValue("a delta of 0 goes nowhere")
    count = max(int(np.ceil((last - first) / step)), 0)
    return start.builder.constant((first + np.arange(start.builder.make(count)) * step).astype(dtype))


@function("ConstantOfShape", samples=[case(I(2, 3)), case(I(2), value=np.array([7], np.int64))])
def constant_of_shape(shape: Value, *, value: Any = None) -> Value:
    """A tensor of the shape filled with the one element of `value`, float32 0 by default."""
    filler = np.zeros(1, np.float32) if value is None else np.asarray(value)
    if filler.size != 1:
        raise InvalidAttribute(f"value has {filler.size} elements; it needs one")
    return O.Expand(shape.builder.constant(filler.reshape(())), shape)


@function("EyeLike", samples=[case(F(2, 3)), case(F(3, 3), k=-1), case(I([1, 2], [3, 4]), dtype="float32")])
def eye_like(x: Value, *, dtype: Any = None, k: int = 0) -> Value:
    """Ones on the k-th diagonal of a matrix of the shape of x, zeros elsewhere."""
    require_rank(x, 2, 2)
    x.builder.make(int(x.sizes[0]) * int(x.sizes[1]))
    return x.builder.constant(
        np.eye(x.sizes[0], x.sizes[1], k).astype(x.dtype if dtype is None else dtype_named(dtype))
    )


@function("CastLike", samples=[case(F(2, 3), F(2)), case(I(1, 2), F(1), static=(1,))])
def cast_like(x: Value, like: Value, *, saturate: int = 1) -> Value:
    """x converted to the type of `like`."""
    return O.Cast(x, to=like.dtype.name, saturate=saturate)
