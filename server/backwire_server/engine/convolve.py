"""The calls that make up a convolution and its two gradients; see `columns` for how they go about it."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from backwire_server.engine.columns import Tiling, at, blocks, pad
from backwire_server.engine.graph import Array
from backwire_server.engine.registry import Call, Take
from backwire_server.engine.windows import Window

SCATTER_COST = 2.5  # what it costs to add a column to where it came from, relative to gathering one


class Preparation:
    """Collects the calls. `take` gives arrays to work in."""

    def __init__(self, window: Window, group: int, take: Take) -> None:
        self.window = window
        self.group = group
        self.take = take
        self.calls: list[Call] = []

    def forward(self, out: Array, x: Array, w: Array) -> None:
        """Out [N, M, ...] = x [N, C, ...] convolved with w [M, C/group, ...]."""
        tiling = Tiling.of(x.shape[0], x.shape[2:], self.window)
        kernels = self._solid(w).reshape(self.group, w.shape[0] // self.group, -1)
        self._convolve(tiling, out.transpose(tiling.order), x.transpose(tiling.order), kernels)

    def by_kernel(self, out: Array, x: Array, g: Array) -> None:
        """Out [M, C/group, ...] = the gradient by the kernels of what `forward` computes."""
        tiling = Tiling.of(x.shape[0], x.shape[2:], self.window)
        slopes = self._solid(g.transpose(tiling.order)).reshape(self.group, g.shape[1] // self.group, -1)
        found = out.reshape(self.group, out.shape[0] // self.group, -1).swapaxes(1, 2)
        total, part = (self.take(found.shape, found.dtype) for _ in range(2))  # turned: BLAS is faster at tall products
        for number, (places, gather, columns) in enumerate(self._gathered(tiling, x.transpose(tiling.order))):
            target = part if number else total
            turned = slopes[:, :, places].swapaxes(1, 2)
            self.calls += [*gather, partial(np.matmul, columns, turned, out=target)]
            if number:
                self.calls.append(partial(np.add, total, part, out=total))
        self.calls.append(partial(np.copyto, found, total))

    def by_input(self, out: Array, g: Array, w: Array) -> None:
        """Out [N, C, ...] = the gradient by the input of what `forward` computes."""
        window, rank = self.window, len(self.window.kernel)
        reach = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
        pads = [r - p for r, p in zip((*reach, *reach), window.pads, strict=True)]
        gathered, scattered = prod(out.shape[2:]) * w.shape[0], prod(g.shape[2:]) * w.shape[1] * self.group
        if set(window.strides) == {1} and min(pads) >= 0 and gathered < SCATTER_COST * scattered:
            tiling = Tiling.of(
                g.shape[0], g.shape[2:], Window(window.kernel, window.strides, tuple(pads), window.dilations)
            )
            turned = self._turned(w, rank)
            self._convolve(tiling, out.transpose(tiling.order), g.transpose(tiling.order), turned)
        else:
            self._scatter(out, g, w)

    def _convolve(self, tiling: Tiling, out: Array, x: Array, kernels: Array) -> None:
        result = out.reshape(self.group, out.shape[0] // self.group, -1)
        for places, gather, columns in self._gathered(tiling, x):
            self.calls += [*gather, partial(np.matmul, kernels, columns, out=result[:, :, places])]

    def _gathered(self, tiling: Tiling, x: Array) -> Iterator[tuple[slice, Sequence[Call], Array]]:
        """Yields blocks of windows: which they are, the calls that gather them, and the columns [group, ...] then."""
        if tiling.is_identity:
            x = self._solid(x)
            yield slice(None), (), x.reshape(self.group, x.shape[0] // self.group, -1)
            return
        padded, room = self._padded(tiling, x), self._columns(tiling, x)
        rows = x.shape[0] // self.group * prod(tiling.kernel)
        for block in blocks(tiling, padded, room):
            yield block.columns, block.gather, block.array.reshape(self.group, rows, -1)

    def _scatter(self, out: Array, g: Array, w: Array) -> None:
        tiling = Tiling.of(g.shape[0], out.shape[2:], self.window)
        slopes = self._solid(g.transpose(tiling.order)).reshape(self.group, g.shape[1] // self.group, -1)
        kernels = self._solid(w).reshape(self.group, w.shape[0] // self.group, -1).swapaxes(1, 2)
        found = out.transpose(tiling.order)
        spread = self.take((found.shape[0], *tiling.padded), found.dtype) if tiling.is_padded else found
        self.calls.append(partial(spread.fill, 0))
        for block in blocks(tiling, spread, self._columns(tiling, found)):
            columns = block.array.reshape(self.group, kernels.shape[1], -1)
            self.calls.append(partial(np.matmul, kernels, slopes[:, :, block.columns], out=columns))
            for place, slices in tiling.places(block.start, block.stop):
                target = spread[slices]
                self.calls.append(partial(np.add, target, block.array[at(place)], out=target))
        if spread is not found:
            self.calls.append(partial(np.copyto, found, spread[tiling.inside()]))

    def _turned(self, w: Array, rank: int) -> Array:
        """Returns the kernels turned round, with input and output channels exchanged: [group, C/group, M/group ...]."""
        split = w.reshape(self.group, w.shape[0] // self.group, *w.shape[1:])
        backwards: Any = (..., *[slice(None, None, -1)] * rank)
        turned = split.swapaxes(1, 2)[backwards]
        room = self.take(turned.shape, turned.dtype)
        self.calls.append(partial(np.copyto, room, turned))
        return room.reshape(self.group, turned.shape[1], -1)

    def _solid(self, x: Array) -> Array:
        """Returns x, copied if it has gaps or lies in another order."""
        if x.flags.c_contiguous:
            return x
        room = self.take(x.shape, x.dtype)
        self.calls.append(partial(np.copyto, room, x))
        return room

    def _padded(self, tiling: Tiling, x: Array) -> Array:
        if not tiling.is_padded and x.strides[-1] == x.itemsize:
            return x
        room = self.take((x.shape[0], *tiling.padded), x.dtype)
        self.calls += pad(tiling, x, room)
        return room

    def _columns(self, tiling: Tiling, x: Array) -> Array:
        return self.take(tiling.room(x.shape[0], x.itemsize), x.dtype)
