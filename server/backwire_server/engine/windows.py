"""Sliding windows over the spatial axes of [batch, channel, ...] arrays: what convolution and pooling share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from backwire_server.engine.dims import Dim, Shape
from backwire_server.engine.errors import InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Array

AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True, slots=True)
class Window:
    """A window's geometry for each spatial axis; `pads` lists what is added before each axis, then after each."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def output_sizes(self, sizes: Sequence[Dim]) -> Shape:
        """Returns how many windows fit along each axis; raises ShapeMismatch when none does."""
        rank, found = len(self.kernel), []
        for axis, size in enumerate(sizes):
            extent = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            room = size + self.pads[axis] + self.pads[axis + rank] - extent
            if isinstance(room, int) and room < 0:
                raise ShapeMismatch(f"a window of {extent} does not fit into the padded size {room + extent}; pad more")
            found.append(room // self.strides[axis] + 1)
        return tuple(found)

    def padded(self, x: Array, value: float) -> Array:
        """Returns x with its spatial axes padded."""
        if not any(self.pads):
            return x
        rank = len(self.kernel)
        widths = [(0, 0), (0, 0), *((self.pads[axis], self.pads[axis + rank]) for axis in range(rank))]
        return np.pad(x, widths, constant_values=value)

    def views(self, padded: Array) -> Array:
        """Returns a view [batch, channel, *outputs, *kernel] of a padded array."""
        rank = len(self.kernel)
        extents = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        found = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=tuple(range(2, 2 + rank)))
        steps = [slice(None, None, each) for each in (*self.strides, *self.dilations)]
        return found[(slice(None), slice(None), *steps)]

    def offsets(self, outputs: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Yields each place in the kernel with the slices of the padded axes that it touches in all windows."""
        for place in product(*(range(k) for k in self.kernel)):
            starts = [at * d for at, d in zip(place, self.dilations, strict=True)]
            spans = zip(starts, outputs, self.strides, strict=True)
            yield place, tuple(slice(start, start + step * (n - 1) + 1, step) for start, n, step in spans)

    def folded(self, windows: Array, sizes: Sequence[int]) -> Array:
        """Returns the adjoint of padding and viewing: [batch, channel, *outputs, *kernel] added into the sizes."""
        rank = len(self.kernel)
        full = [size + self.pads[axis] + self.pads[axis + rank] for axis, size in enumerate(sizes)]
        result = np.zeros((*windows.shape[:2], *full), windows.dtype)
        by_place = np.moveaxis(windows, range(-rank, 0), range(rank))
        for place, slices in self.offsets(windows.shape[2 : 2 + rank]):
            result[(slice(None), slice(None), *slices)] += by_place[place]
        inside = (slice(self.pads[axis], self.pads[axis] + size) for axis, size in enumerate(sizes))
        return result[(slice(None), slice(None), *inside)]


def window_of(
    sizes: Sequence[Dim],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Window:
    """Returns the geometry that ONNX's attributes mean for these spatial sizes, all pads made explicit.

    With `ceil_mode` the last pads grow so that a window that begins inside the padded axis is counted. Raises
    InvalidAttribute when an attribute has the wrong length or sign, UnknownDimension when sizes must be known but are
    symbolic.
    """
    rank = len(sizes)
    steps = tuple(strides or (1,) * rank)
    gaps = tuple(dilations or (1,) * rank)
    for name, value, length in (("kernel_shape", kernel, rank), ("strides", steps, rank), ("dilations", gaps, rank)):
        if len(value) != length or min(value, default=1) < 1:
            raise InvalidAttribute(f"{name} is {list(value)}; it needs {length} entries of at least 1")
    if auto_pad not in AUTO_PADS:
        raise InvalidAttribute(f"auto_pad is {auto_pad!r}; use one of {', '.join(AUTO_PADS)}")
    around = tuple(pads or (0,) * (2 * rank))
    if len(around) != 2 * rank or min(around, default=0) < 0:
        raise InvalidAttribute(f"pads is {list(around)}; it needs {2 * rank} entries of at least 0")
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, gaps, strict=True)]
    if auto_pad == "VALID":
        around = (0,) * (2 * rank)
    elif auto_pad != "NOTSET":
        around = _same_pads([int(size) for size in sizes], extents, steps, auto_pad == "SAME_LOWER")
    if ceil_mode:
        around = _ceil_pads([int(size) for size in sizes], extents, steps, around)
    return Window(tuple(kernel), steps, around, gaps)


def _same_pads(sizes: Sequence[int], extents: Sequence[int], steps: Sequence[int], lower: bool) -> tuple[int, ...]:
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(sizes, extents, steps, strict=True)]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*large, *small) if lower else (*small, *large)


def _ceil_pads(
    sizes: Sequence[int], extents: Sequence[int], steps: Sequence[int], pads: Sequence[int]
) -> tuple[int, ...]:
    rank, grown = len(sizes), list(pads)
    for axis, (size, extent, step) in enumerate(zip(sizes, extents, steps, strict=True)):
        count = -(-(size + pads[axis] + pads[axis + rank] - extent) // step) + 1
        if (count - 1) * step >= size + pads[axis]:  # the last window would begin in the padding after the axis
            count -= 1
        grown[axis + rank] = max(pads[axis + rank], (count - 1) * step + extent - size - pads[axis])
    return tuple(grown)
