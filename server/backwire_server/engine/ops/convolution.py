"""Convolution. Three bilinear operators are one another's gradients, so it is differentiable any number of times."""

from typing import Any

import numpy as np

from backwire_server.engine.columns import order
from backwire_server.engine.convolve import Preparation
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array, TensorType
from backwire_server.engine.narrow import single
from backwire_server.engine.operators import Rule
from backwire_server.engine.registry import Call, Take, function, gradient, op, prepared, stored
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import common_dtype, require_equal, require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import Window, window_of

Ints = tuple[int, ...]

SMALL: dict[str, Any] = {"strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (1, 2), "group": 2}


@function(
    "Conv",
    samples=[
        case(F(2, 3, 5, 4), F(4, 3, 3, 2), F(4)),
        case(F(2, 2, 5, 5), F(4, 1, 2, 2), F(4), **SMALL),
        case(F(1, 2, 6), F(3, 2, 3), auto_pad="SAME_UPPER", strides=(2,)),
        case(F(1, 1, 3, 3, 3), F(2, 1, 2, 2, 2), pads=(1, 0, 0, 0, 1, 0)),
    ],
)
def conv(
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """The cross-correlation of x [N, C, d1, ...] with kernels w [M, C/group, k1, ...], plus a bias b [M]."""
    require_rank(x, 3)
    if w.rank != x.rank:
        raise ShapeMismatch(f"x has rank {x.rank} and w {w.rank}; they must be equal")
    kernel = w.sizes[2:]
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise InvalidAttribute(f"kernel_shape is {list(kernel_shape)}, but w has {list(kernel)}; leave it out")
    window = window_of(x.shape[2:], kernel, strides, pads, dilations, auto_pad)
    y = O.Convolution(x, w, strides=window.strides, pads=window.pads, dilations=window.dilations, group=group)
    if b is None:
        return y
    require_rank(b, 1, 1)
    require_equal(b.shape[0], w.shape[0], "sizes of bias and output channels")
    return y + O.Reshape(b, [1, w.sizes[0], *[1] * len(kernel)])


def _check_group(group: int, channels: object, w: Value) -> None:
    if group < 1 or w.sizes[0] % group:
        raise InvalidAttribute(f"group is {group}; it must divide the {w.sizes[0]} output channels")
    if isinstance(channels, int) and channels != w.sizes[1] * group:
        raise ShapeMismatch(f"x has {channels} channels; w with group {group} takes {w.sizes[1] * group}")


def _convolution_type(x: Value, w: Value, *, strides: Ints, pads: Ints, dilations: Ints, group: int) -> TensorType:
    dtype = common_dtype([x, w], "f")
    _check_group(group, x.shape[1], w)
    window = Window(w.sizes[2:], strides, pads, dilations)
    return TensorType(dtype, (x.shape[0], w.shape[0], *window.output_sizes(x.shape[2:])))


def _columns(x: Array, window: Window, group: int) -> Array:
    """Returns the windows as matrices [group, batch * outputs, channels/group * kernel]."""
    rank = len(window.kernel)
    views = window.views(window.padded(x, 0.0))
    batch, channels, outputs = views.shape[0], views.shape[1] // group, views.shape[2 : 2 + rank]
    views = views.reshape(batch, group, channels, *outputs, *window.kernel)
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    return views.transpose(order).reshape(group, batch * int(np.prod(outputs)), channels * int(np.prod(window.kernel)))


def _rows(g: Array, group: int) -> Array:
    """Returns an array [batch, channels, *outputs] as matrices [group, batch * outputs, channels/group]."""
    batch, channels, places = g.shape[0], g.shape[1] // group, int(np.prod(g.shape[2:]))
    return g.reshape(batch, group, channels, places).transpose(1, 0, 3, 2).reshape(group, batch * places, channels)


def _kernels(w: Array, group: int) -> Array:
    """Returns kernels as matrices [group, outputs/group, channels/group * kernel]."""
    return w.reshape(group, w.shape[0] // group, int(np.prod(w.shape[1:])))


def _product(a: Array, b: Array) -> Array:
    return np.asarray(single(a) @ single(b)).astype(a.dtype, copy=False)


@op("Convolution", shape=_convolution_type, samples=[case(F(2, 2, 5, 5), F(4, 1, 2, 2), **SMALL)], internal=True)
def convolution(x: Array, w: Array, *, strides: Ints, pads: Ints, dilations: Ints, group: int) -> Array:
    """Conv with everything explicit and no bias. Used by Conv."""
    window = Window(w.shape[2:], strides, pads, dilations)
    outputs = tuple(int(size) for size in window.output_sizes(x.shape[2:]))
    found = _product(_columns(x, window, group), _kernels(w, group).transpose(0, 2, 1))
    found = found.reshape(group, x.shape[0], *outputs, w.shape[0] // group)
    return np.moveaxis(np.moveaxis(found, -1, 1), 2, 0).reshape(x.shape[0], w.shape[0], *outputs)


def _prepared(name: str, kernel: Rule, method: str) -> None:
    """Registers how an operator is prepared: by a method of Preparation."""

    def prepare(
        out: Array,
        a: Array,
        b: Array,
        *,
        strides: Ints,
        pads: Ints,
        dilations: Ints,
        group: int,
        take: Take,
        **size: Ints,
    ) -> list[Call]:
        if a.dtype not in (np.float32, np.float64) or not a.size * b.size * out.size:
            how = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
            return [lambda: stored(kernel(a, b, **how, **size), out)]
        places = size.get("kernel", b.shape[2:])
        preparation = Preparation(Window(places, strides, pads, dilations), group, take)
        getattr(preparation, method)(out, a, b)
        return preparation.calls

    if method == "by_kernel":
        prepared(name, settled={0: order, 1: order})(prepare)
    else:
        prepared(name, order=lambda a, b, **_: order(a), settled={0: order})(prepare)


_prepared("Convolution", convolution, "forward")


@gradient("Convolution")
def _(
    g: Value, y: Value, x: Value, w: Value, *, strides: Ints, pads: Ints, dilations: Ints, group: int
) -> tuple[Value, Value]:
    how = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    by_x = O.ConvolutionInputGradient(g, w, sizes=x.sizes[2:], **how)
    return by_x, O.ConvolutionKernelGradient(x, g, kernel=w.sizes[2:], **how)


@op(
    "ConvolutionInputGradient",
    shape=lambda g, w, sizes, strides, pads, dilations, group: TensorType(
        g.dtype, (g.shape[0], w.shape[1] * group, *sizes)
    ),
    samples=[case(F(2, 4, 3, 4), F(4, 1, 2, 2), sizes=(5, 5), **SMALL)],
    internal=True,
)
def convolution_input_gradient(
    g: Array, w: Array, *, sizes: Ints, strides: Ints, pads: Ints, dilations: Ints, group: int
) -> Array:
    """The gradient of Convolution by x, of those spatial sizes."""
    window = Window(w.shape[2:], strides, pads, dilations)
    rank, outputs, channels = len(window.kernel), g.shape[2:], w.shape[1]
    columns = _product(_rows(g, group), _kernels(w, group))
    columns = columns.reshape(group, g.shape[0], *outputs, channels, *window.kernel)
    order = (1, 0, 2 + rank, *range(2, 2 + rank), *range(3 + rank, 3 + 2 * rank))
    stacked = columns.transpose(order).reshape(g.shape[0], group * channels, *outputs, *window.kernel)
    return window.folded(stacked, sizes)


_prepared("ConvolutionInputGradient", convolution_input_gradient, "by_input")


@gradient("ConvolutionInputGradient")
def _(
    g: Value, y: Value, x: Value, w: Value, *, sizes: Ints, strides: Ints, pads: Ints, dilations: Ints, group: int
) -> tuple[Value, Value]:
    how = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    return O.Convolution(g, w, **how), O.ConvolutionKernelGradient(g, x, kernel=w.sizes[2:], **how)


@op(
    "ConvolutionKernelGradient",
    shape=lambda x, g, kernel, strides, pads, dilations, group: TensorType(
        x.dtype, (g.shape[1], x.shape[1] // group, *kernel)
    ),
    samples=[case(F(2, 2, 5, 5), F(2, 4, 3, 4), kernel=(2, 2), **SMALL)],
    internal=True,
)
def convolution_kernel_gradient(
    x: Array, g: Array, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, group: int
) -> Array:
    """The gradient of Convolution by w, of that kernel shape."""
    columns = _columns(x, Window(kernel, strides, pads, dilations), group)
    found = _product(_rows(g, group).transpose(0, 2, 1), columns)
    return found.reshape(g.shape[1], x.shape[1] // group, *kernel)


_prepared("ConvolutionKernelGradient", convolution_kernel_gradient, "by_kernel")


@gradient("ConvolutionKernelGradient")
def _(
    g: Value, y: Value, x: Value, h: Value, *, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, group: int
) -> tuple[Value, Value]:
    how = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    return O.ConvolutionInputGradient(h, g, sizes=x.sizes[2:], **how), O.Convolution(x, g, **how)
