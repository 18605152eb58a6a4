"""What the drawn gradient checks share: shapes, axes and attributes from hypothesis, and numbers away from kinks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from backwire_server.engine.samples import Sample, case

Array = NDArray[Any]
Shape = tuple[int, ...]

POINTS = 4000


class Draw:
    """Draws the inputs and attributes of one call of an operator."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        seed = self._draw(st.integers(0, 2**32 - 1))
        self._points = iter(np.random.default_rng(seed).permutation(POINTS).tolist())

    def number(self, least: int, most: int) -> int:
        return int(self._draw(st.integers(least, most)))

    def pick(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))

    def flag(self) -> int:
        return self.number(0, 1)

    def shape(self, least: int = 0, most: int = 3, size: int = 3) -> Shape:
        """Returns a rank between the bounds, of sizes from 1."""
        return tuple(self.number(1, size) for _ in range(self.number(least, most)))

    def broadcast_with(self, shape: Shape) -> Shape:
        """Returns a shape that broadcasts with the other to that one or to a larger one."""
        kept = [self.pick(size, 1) if size > 1 else self.number(1, 3) for size in shape]
        return (*self.shape(0, 1), *kept)[self.number(0, len(kept)) :]

    def within(self, shape: Shape) -> Shape:
        """Returns a shape that broadcasts to the other."""
        return tuple(self.pick(size, 1) for size in shape[self.number(0, len(shape)) :])

    def axis(self, rank: int) -> int:
        return self.number(-rank, rank - 1)

    def order(self, count: int) -> Shape:
        return tuple(self._draw(st.permutations(range(count))))

    def axes(self, rank: int, least: int = 1) -> list[int]:
        """Returns different axes in any order, each counted from the front or from the back."""
        chosen = self.order(rank)[: self.number(least, rank)]
        return [axis - rank * self.flag() for axis in chosen]

    def per_axis(self, rank: int, least: int, most: int) -> Shape:
        return tuple(self.number(least, most) for _ in range(rank))

    def floats(self, *shape: int, low: float = -2.0, high: float = 2.0) -> Array:
        """Returns numbers between the bounds that no other of this call's comes close to, nor a multiple of 1/1000."""
        count = int(np.prod(shape))
        points = np.array([next(self._points) for _ in range(count)], np.float64)
        return (low + (high - low) * (points + 0.5) / POINTS).reshape(shape)

    def below(self, limit: int, *shape: int) -> Array:
        """Returns indices in [-limit, limit)."""
        found = [self.number(-limit, limit - 1) for _ in range(int(np.prod(shape)))]
        return np.array(found, np.int64).reshape(shape)

    def bools(self, *shape: int) -> Array:
        return np.array([self.flag() for _ in range(int(np.prod(shape)))], bool).reshape(shape)

    def maybe(self, make: Callable[[], Array]) -> Array | None:
        """Returns an optional input, or None."""
        return make() if self.flag() else None


Strategy = Callable[[Draw], Sample]


def ints(*items: Any) -> Array:
    return np.array(items, np.int64)


def call(*inputs: Array | None, outputs: int = 1, static: Shape = (), **attributes: Any) -> Sample:
    """Returns a call; inputs left out at the end are dropped, and so are attributes that are None."""
    kept = list(inputs)
    while kept and kept[-1] is None:
        kept.pop()
    given = {name: value for name, value in attributes.items() if value is not None}
    return case(*kept, n_outputs=outputs, static=static, **given)
