"""ConvTranspose: the adjoint of convolution as a layer of its own."""

from typing import Any

from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import common_dtype, require_equal, require_rank
from backwire_server.engine.values import O, Value
from backwire_server.engine.windows import AUTO_PADS

Ints = tuple[int, ...]


@function(
    "ConvTranspose",
    samples=[
        case(F(1, 2, 3, 3), F(2, 3, 3, 2), F(3)),
        case(F(1, 2, 3), F(2, 1, 3), strides=(2,), pads=(1, 1), output_padding=(1,)),
        case(F(1, 4, 2, 3), F(4, 1, 2, 2), group=2, dilations=(2, 1), strides=(1, 2)),
        case(F(1, 1, 3, 3), F(1, 2, 3, 3), strides=(3, 2), output_shape=(10, 8)),
        case(F(1, 1, 3), F(1, 1, 3), strides=(2,), auto_pad="SAME_LOWER"),
    ],
)
def conv_transpose(
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Value:
    """The adjoint of Conv with kernels w [C, M/group, k1, ...] applied to x [N, C, d1, ...], plus a bias b [M].

    Each element of x spreads over a window; along each axis the result has
    stride (d - 1) + dilation (k - 1) + 1 + output_padding - pads elements, or
    `output_shape` of them, for which the pads are chosen.
    """
    common_dtype([x, w], "f")
    rank = _spatial_rank(x, w, group, kernel_shape)
    steps, gaps = _per_axis("strides", strides, rank, 1), _per_axis("dilations", dilations, rank, 1)
    beyond = _per_axis("output_padding", output_padding, rank, 0)
    sizes = [int(dim) for dim in x.shape[2:]]
    extents = [gap * (k - 1) + 1 for k, gap in zip(w.sizes[2:], gaps, strict=True)]
    full = tuple(step * (size - 1) + extent for size, step, extent in zip(sizes, steps, extents, strict=True))
    how: dict[str, Any] = {"strides": steps, "dilations": gaps, "pads": (0,) * (2 * rank), "group": group}
    y = O.ConvolutionInputGradient(x, w, sizes=full, **how)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and output_shape is None:
        output_shape = tuple(size * step for size, step in zip(sizes, steps, strict=True))
    around = _around(full, beyond, auto_pad, output_shape, pads)
    if any(around):
        y = O.ConstantPad(y, 0.0, pads=(0, 0, *around[:rank], 0, 0, *around[rank:]))
    if b is None:
        return y
    require_rank(b, 1, 1)
    require_equal(b.shape[0], y.shape[1], "sizes of bias and output channels")
    return y + O.Reshape(b, [-1, *[1] * rank])


def _spatial_rank(x: Value, w: Value, group: int, kernel_shape: Ints | None) -> int:
    require_rank(x, 3)
    require_rank(w, x.rank, x.rank)
    require_equal(x.shape[1], w.shape[0], "the channels of x and the first size of w")
    if group < 1 or w.sizes[0] % group:
        raise InvalidAttribute(f"group is {group}; it must divide the {w.sizes[0]} input channels")
    if kernel_shape is not None and tuple(kernel_shape) != w.sizes[2:]:
        raise InvalidAttribute(f"kernel_shape is {list(kernel_shape)}, but w has {list(w.sizes[2:])}; leave it out")
    return x.rank - 2


def _per_axis(name: str, given: Ints | None, rank: int, least: int) -> Ints:
    """Returns one entry for each spatial axis, the least allowed one by default."""
    found = tuple(given) if given else (least,) * rank
    if len(found) != rank or min(found) < least:
        raise InvalidAttribute(f"{name} is {list(found)}; it needs {rank} entries of at least {least}")
    return found


def _around(full: Ints, beyond: Ints, auto_pad: str, output_shape: Ints | None, pads: Ints | None) -> Ints:
    """Returns what is added before and after each spatial axis of the full result; negative figures cut."""
    rank = len(full)
    if auto_pad not in AUTO_PADS:
        raise InvalidAttribute(f"auto_pad is {auto_pad!r}; use one of {', '.join(AUTO_PADS)}")
    if output_shape is None:
        cut = (0,) * (2 * rank) if auto_pad == "VALID" else _per_axis("pads", pads, 2 * rank, 0)
        return (*(-each for each in cut[:rank]), *(more - each for more, each in zip(beyond, cut[rank:], strict=True)))
    if len(output_shape) != rank or min(output_shape) < 1:
        raise ShapeMismatch(f"output_shape is {list(output_shape)}; it needs {rank} entries of at least 1")
    totals = [max(size + more - to, 0) for size, more, to in zip(full, beyond, output_shape, strict=True)]
    before = [total // 2 if auto_pad == "SAME_UPPER" else total - total // 2 for total in totals]
    ends = (to - size + cut for to, size, cut in zip(output_shape, full, before, strict=True))
    return (*(-cut for cut in before), *ends)
