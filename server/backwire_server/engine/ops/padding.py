"""Pad in all its modes."""

import numpy as np

from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.ops.indexing import axes_in_order
from backwire_server.engine.registry import function, gradient, op
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.values import O, Value

COPYING_MODES = ("reflect", "edge", "wrap")  # named as in numpy


@function(
    "Pad",
    samples=[
        case(F(2, 3), I(1, 0, 0, 2)),
        case(F(3, 4), I(-1, 1), np.array(0.5), I(1)),
        case(F(2, 4), I(0, 2, 0, 3), mode="reflect"),
        case(F(2, 3), I(1, 0, 2, 1), mode="edge"),
        case(F(2, 3), I(0, 2, 1, 3), mode="wrap"),
    ],
)
def pad(
    x: Value, pads: Value, value: Value | None = None, axes: Value | None = None, *, mode: str = "constant"
) -> Value:
    """x with elements added before and after each axis: a constant, a reflection, the edge, or x again and again.

    `pads` lists what is added at the beginning of each axis, then at the end; negative figures cut.
    """
    places = range(x.rank) if axes is None else axes_in_order(axes.known.tolist(), x.rank)
    given = pads.known.tolist()
    if len(given) != 2 * len(places):
        raise ShapeMismatch(f"pads has {len(given)} entries; it needs 2 for each of {len(places)} axes")
    before, after = [0] * x.rank, [0] * x.rank
    for place, first, last in zip(places, given, given[len(places) :], strict=False):
        before[place], after[place] = int(first), int(last)
    if mode == "constant":
        filler = x.like(0.0) if value is None else value
        return O.ConstantPad(x, O.Reshape(filler, []), pads=(*before, *after))
    if mode not in COPYING_MODES:
        raise InvalidAttribute(f"mode is {mode!r}; use constant, {', '.join(COPYING_MODES)}")
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):
        if first or last:
            x.builder.make(int(x.shape[axis]) + max(first, 0) + max(last, 0))
            x = O.Gather(x, _source(int(x.shape[axis]), first, last, mode), axis=axis)
    return x


def _source(size: int, first: int, last: int, mode: str) -> Array:
    """Returns, for each place of a padded axis, the place it is copied from."""
    if size == 0 or (mode == "reflect" and size == 1 and max(first, last) > 0):
        raise ShapeMismatch(f"an axis of size {size} has nothing to {mode}; use mode constant")
    source = np.pad(np.arange(size), (max(first, 0), max(last, 0)), mode)  # type: ignore[call-overload]
    return np.asarray(source[max(-first, 0) : len(source) - max(-last, 0)])


def _constant_pad_type(x: Value, value: Value, *, pads: tuple[int, ...]) -> TensorType:
    shape = tuple(dim + pads[axis] + pads[axis + x.rank] for axis, dim in enumerate(x.shape))
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        raise ShapeMismatch("the negative pads cut away more than there is")
    return TensorType(x.dtype, shape)


@op("ConstantPad", shape=_constant_pad_type, samples=[case(F(2, 3), F(), pads=(1, 0, -1, 2))], internal=True)
def constant_pad(x: Array, value: Array, *, pads: tuple[int, ...]) -> Array:
    """x with the value added around it. Used by Pad."""
    result = np.full([n + pads[a] + pads[a + x.ndim] for a, n in enumerate(x.shape)], value, x.dtype)
    source = tuple(slice(max(-pads[a], 0), n - max(-pads[a + x.ndim], 0)) for a, n in enumerate(x.shape))
    target = tuple(slice(max(pads[a], 0), n - max(pads[a + x.ndim], 0)) for a, n in enumerate(result.shape))
    result[target] = x[source]
    return result


@gradient("ConstantPad")
def _(g: Value, y: Value, x: Value, value: Value, *, pads: tuple[int, ...]) -> tuple[Value, Value]:
    inside = O.ConstantPad(g, 0.0, pads=tuple(-each for each in pads))
    return inside, O.ReduceSum(g, keepdims=0) - O.ReduceSum(inside, keepdims=0)
