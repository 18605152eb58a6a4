"""Draws choices from bytes, so that a fuzzer can guide them."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
SIZES = (0, 1, -1, 2, 3, 7, 64, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**62, 2**63 - 1, -(2**63))
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "y", "loss", "\0", "%1:Add", "\U0001f600", "ij,jk->ik", "...", "->", "i" * 500)
LENGTHS = (1, 2, 2, 3, 3, 4, 4, 6, 6, 8, 8, 12, 16, 24, 60, 400)
GIANT = (9, 33, 65, 1_000, 1_000, 50_000)


class Draw:
    """Decisions taken from bytes, one after another; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def below(self, count: int) -> int:
        """Returns a number from 0 to below `count`, which is at most 65,536."""
        taken = self._data[self._place : self._place + (1 if count <= 256 else 2)]
        self._place += len(taken)
        return int.from_bytes(taken, "big") % count

    def one(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def rest(self) -> bytes:
        """Returns what was not used."""
        return self._data[self._place :]
