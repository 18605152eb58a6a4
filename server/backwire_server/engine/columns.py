"""Convolution as products of matrices whose columns are windows, in blocks that stay in the processor's cache.

The batch is one more axis along which a window has one place. Where it is large it lies innermost, so that a window's
elements are long runs in memory: [channels, d1, ..., batch]; else outermost: [channels, batch, d1, ...].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np

from backwire_server.engine.geometry import Order
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import Call
from backwire_server.engine.windows import Window

Shape = tuple[int, ...]
Slices = tuple[slice, ...]


LONG_RUN = 16  # elements of a batch that are worth lying innermost
BLOCK_BYTES = 384 * 1024  # columns at a time: half of a common second-level cache, with room for what else is touched


@dataclass(frozen=True, slots=True)
class Tiling:
    """A window's geometry over all axes but the channels, in the order in which they lie in memory."""

    order: Order
    sizes: Shape
    outputs: Shape
    kernel: Shape
    strides: Shape
    dilations: Shape
    before: Shape
    after: Shape

    @classmethod
    def of(cls, batch: int, sizes: Sequence[int], window: Window) -> "Tiling":
        """Returns the tiling of [batch, channels, *sizes] by windows."""
        rank, inner = len(sizes), batch >= LONG_RUN
        spatial = range(2, 2 + rank)

        def along(values: Sequence[int], of_batch: int) -> Shape:
            return (*values, of_batch) if inner else (of_batch, *values)

        return cls(
            (1, *spatial, 0) if inner else (1, 0, *spatial),
            along(sizes, batch),
            along([int(size) for size in window.output_sizes(sizes)], batch),
            along(window.kernel, 1),
            along(window.strides, 1),
            along(window.dilations, 1),
            along(window.pads[:rank], 0),
            along(window.pads[rank:], 0),
        )

    @property
    def padded(self) -> Shape:
        """The sizes with what is added around them."""
        return tuple(a + n + b for a, n, b in zip(self.before, self.sizes, self.after, strict=True))

    @property
    def is_padded(self) -> bool:
        """Whether anything is added."""
        return any(self.before) or any(self.after)

    @property
    def is_identity(self) -> bool:
        """Whether each window is one element, and each element one window."""
        return not self.is_padded and prod(self.kernel) == 1 and self.sizes == self.outputs

    def rows(self, channels: int, itemsize: int) -> int:
        """Returns how many places along the first axis make a block of columns."""
        one = channels * prod(self.kernel) * prod(self.outputs[1:]) * itemsize
        return max(1, min(self.outputs[0], BLOCK_BYTES // max(one, 1)))

    def room(self, channels: int, itemsize: int) -> Shape:
        """Returns the shape of an array that holds the columns of a block."""
        return (channels * prod(self.kernel) * self.rows(channels, itemsize) * prod(self.outputs[1:]),)

    def inside(self) -> Slices:
        """Returns where the elements lie in the padded array."""
        return (slice(None), *(slice(a, a + n) for a, n in zip(self.before, self.sizes, strict=True)))

    def margins(self) -> Iterator[Slices]:
        """Yields the parts of the padded array that hold no elements."""
        for axis, (a, n, b) in enumerate(zip(self.before, self.sizes, self.after, strict=True)):
            lead = (slice(None),) * (axis + 1)
            if a:
                yield (*lead, slice(0, a))
            if b:
                yield (*lead, slice(a + n, a + n + b))

    def places(self, start: int, stop: int) -> Iterator[tuple[Shape, Slices]]:
        """Yields each place in the kernel with what it touches of the padded array, for windows start to stop."""
        for place in product(*(range(k) for k in self.kernel)):
            starts = [at * d for at, d in zip(place, self.dilations, strict=True)]
            counts = (stop - start, *self.outputs[1:])
            starts[0] += start * self.strides[0]
            spans = zip(starts, counts, self.strides, strict=True)
            yield place, (slice(None), *(slice(at, at + step * (n - 1) + 1, step) for at, n, step in spans))


@dataclass(frozen=True, slots=True)
class Block:
    """The windows start to stop along the first axis: which columns they are, and the calls that gather them."""

    start: int
    stop: int
    columns: slice
    array: Array
    gather: Sequence[Call]


def pad(tiling: Tiling, x: Array, room: Array) -> list[Call]:
    """Returns the calls that copy x [channels, ...] into `room`, with zeros around."""
    calls: list[Call] = [partial(room[part].fill, 0) for part in tiling.margins()]
    return [*calls, partial(np.copyto, room[tiling.inside()], x)]


def blocks(tiling: Tiling, x: Array, room: Array) -> Iterator[Block]:
    """Yields the blocks of columns of x, which is padded; each is gathered into the same room."""
    channels, step = x.shape[0], tiling.rows(x.shape[0], x.itemsize)
    inner = prod(tiling.outputs[1:])
    for start in range(0, tiling.outputs[0], step):
        stop = min(start + step, tiling.outputs[0])
        shape = (channels, *tiling.kernel, stop - start, *tiling.outputs[1:])
        columns = room[: prod(shape)].reshape(shape)
        gather = [partial(np.copyto, columns[at(place)], x[slices]) for place, slices in tiling.places(start, stop)]
        yield Block(start, stop, slice(start * inner, stop * inner), columns, gather)


def at(place: Shape) -> Any:
    """Returns the index of what columns [channels, *kernel, ...] hold for a place in the kernel."""
    return (slice(None), *place)


def order(x: Array) -> Order:
    """Returns how [batch, channels, ...] lies in memory where windows slide over it."""
    spatial = range(2, x.ndim)
    return (1, *spatial, 0) if x.shape[0] >= LONG_RUN else (1, 0, *spatial)
