"""Where buffers lie in one block of memory, so that those that are never needed at the same time share bytes."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backwire_server.engine.graph import Array

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(slots=True)
class Buffer:
    """Bytes that are needed from step `first` to step `last`, both included; `offset` is where they are placed."""

    nbytes: int
    first: int
    last: int
    offset: int = 0


def place(buffers: Sequence[Buffer]) -> int:
    """Gives each buffer an offset and returns how many bytes all of them need together.

    Buffers are taken in the order of `first`, and each gets the smallest free gap that it fits into; so a step finds
    in the cache what the steps before it have just left.
    """
    gaps: list[tuple[int, int]] = []  # (offset, size) of what is free below `top`, by offset
    ends: list[tuple[int, int, int]] = []  # (last, offset, size) of what is in use, the next to end at the end
    top = 0
    for buffer in sorted(buffers, key=lambda each: each.first):
        while ends and -ends[-1][0] < buffer.first:
            _, offset, size = ends.pop()
            top = _release(gaps, offset, size, top)
        size = _rounded(buffer.nbytes)
        buffer.offset = _take(gaps, size)
        if buffer.offset < 0:
            buffer.offset = top
            top += size
        insort(ends, (-buffer.last, buffer.offset, size))
    return max((buffer.offset + _rounded(buffer.nbytes) for buffer in buffers), default=0)


def line_up(buffers: Sequence[Buffer]) -> int:
    """Places the buffers one after another, for as long as they are all needed at once."""
    top = 0
    for buffer in buffers:
        buffer.offset = top
        top += _rounded(buffer.nbytes)
    return top


def _rounded(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


def _take(gaps: list[tuple[int, int]], size: int) -> int:
    """Takes `size` bytes out of the smallest gap that has them and returns their offset, -1 when there is none."""
    found = min((gap for gap in gaps if gap[1] >= size), key=lambda gap: gap[1], default=None)
    if found is None:
        return -1
    index = gaps.index(found)
    offset, available = found
    gaps[index : index + 1] = [(offset + size, available - size)] if available > size else []
    return offset


def _release(gaps: list[tuple[int, int]], offset: int, size: int, top: int) -> int:
    """Adds a gap, joined with its neighbours, and returns the new top: a gap that reaches it is given up."""
    insort(gaps, (offset, size))
    index = gaps.index((offset, size))
    if index + 1 < len(gaps) and offset + size == gaps[index + 1][0]:
        size += gaps.pop(index + 1)[1]
    if index and sum(gaps[index - 1]) == offset:
        offset, size = gaps[index - 1][0], gaps[index - 1][1] + size
        gaps.pop(index)
        index -= 1
    gaps[index] = (offset, size)
    if offset + size == top:
        gaps.pop(index)
        return offset
    return top


class Workspace:
    """Memory that the programs of a model use one after another. It grows to what the largest of them needs."""

    def __init__(self) -> None:
        self.memory = allocate(0)

    def reserve(self, nbytes: int) -> Array:
        """Returns at least so many bytes; they stay the same ones until more are needed."""
        if self.memory.nbytes < nbytes:
            self.memory = allocate(nbytes)
        return self.memory


def allocate(nbytes: int) -> Array:
    """Returns so many bytes at an aligned address; their content is arbitrary."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
