"""Norms, finiteness and clipping of gradients. Nothing here changes a gradient vector."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim.errors import POSITIVE, check_fields
from backwire_server.optim.layout import FlatLayout

BLOCK = 32_768
"""How many elements are worked on at a time, so that they stay in the processor's cache."""

RUN = 4
"""How many blocks are worked on at a time by what goes over them once, and as a task where several hands share them."""

_TINY = 1e-30  # squares that sum to less may have lost small ones to underflow in float32


def blocks(start: int, stop: int, length: int = BLOCK) -> Iterator[slice]:
    """Slices of at most so many elements that cover start to stop in order."""
    for low in range(start, stop, length):
        yield slice(low, min(low + length, stop))


def runs(size: int) -> Iterator[slice]:
    """Slices of at most RUN blocks that cover so many elements in order."""
    return blocks(0, size, RUN * BLOCK)


def squares_of(vector: NDArray[Any]) -> list[float]:
    """The sums of the squares of each block of a vector, in its dtype; what leaves its range there is lost."""
    whole = vector.size // BLOCK * BLOCK
    table, rest = vector[:whole].reshape(-1, BLOCK), vector[whole:]
    with np.errstate(all="ignore"):
        found: list[float] = np.vecdot(table, table).tolist()
        return [*found, float(np.dot(rest, rest))] if rest.size else found


def norm(array: NDArray[Any], squares: Sequence[float] | None = None) -> float:
    """The L2 norm of an array of any shape, as a float; `squares` are what `squares_of` gives, where it is known.

    Squares are summed in the array's own dtype within a block and in float64 across blocks; where squares leave the
    range of the dtype, the values are scaled first. It is finite exactly when all elements are (and the norm itself
    fits a float64).
    """
    vector = array.reshape(-1)
    square = _added(squares_of(vector) if squares is None else squares)
    if _TINY < square < math.inf:
        return math.sqrt(square)
    with np.errstate(all="ignore"):
        parts = [vector[part] for part in blocks(0, vector.size)]
        largest = float(np.max([np.max(np.abs(part)) for part in parts], initial=0))
        if largest == 0 or not math.isfinite(largest):
            return largest
        scaled = (part.astype(np.float64) / largest for part in parts)
        return largest * math.sqrt(_added([float(np.dot(part, part)) for part in scaled]))


def global_norm(vectors: Mapping[np.dtype[Any], NDArray[Any]]) -> float:
    """The L2 norm of all vectors together. Not finite when an element is not: see `first_non_finite`."""
    return math.hypot(*map(norm, vectors.values()))


def first_non_finite(layout: FlatLayout, vectors: Mapping[np.dtype[Any], NDArray[Any]]) -> str | None:
    """The first array of the layout, in its order, that holds a NaN or an infinity; None when all are finite."""
    suspects = {dtype for dtype, vector in vectors.items() if not math.isfinite(norm(vector))}
    for name, slot in layout.slots.items():
        if slot.dtype in suspects and not np.isfinite(vectors[slot.dtype][slot.span]).all():
            return name
    return None


@dataclass(frozen=True, slots=True)
class Clipping:
    """Limits on gradients, applied in the order of the attributes.

    With `v = value`, `n = norm` and `c = global_norm`::

        g = min(max(g, -v), v)
        g = g * min(1, n / |g|)    |g| over each parameter by itself
        g = g * min(1, c / |g|)    |g| over all parameters together

    Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", https://arxiv.org/abs/1211.5063.

    Attributes:
        value: The largest magnitude of an element, above 0; None for no limit.
        norm: The largest L2 norm of the gradient of each parameter, above 0; None for no limit.
        global_norm: The largest L2 norm of all gradients together, above 0; None for no limit.
    """

    value: float | None = None
    norm: float | None = None
    global_norm: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("value", "norm", "global_norm") if getattr(self, name) is not None]
        check_fields(self, **dict.fromkeys(given, POSITIVE))

    def factors(self, gradients: Sequence[NDArray[Any]]) -> list[float]:
        """What each array must be multiplied by after `value` was applied, so that the norms hold."""
        if self.norm is None and self.global_norm is None:
            return [1.0] * len(gradients)
        norms = [self._limited_norm(array) for array in gradients]
        own = [_shrink(length, self.norm) for length in norms]
        common = _shrink(math.hypot(*(a * b for a, b in zip(own, norms, strict=True))), self.global_norm)
        return [factor * common for factor in own]

    def limit(self, gradients: NDArray[Any], factor: float, out: NDArray[Any]) -> NDArray[Any]:
        """The gradients limited to `value`, then multiplied, in `out`; `gradients` itself if there is nothing to do."""
        limited = gradients
        if self.value is not None:
            limited = np.clip(limited, -self.value, self.value, out=out)
        if factor != 1.0:
            limited = np.multiply(limited, factor, out=out)
        return limited

    def _limited_norm(self, array: NDArray[Any]) -> float:
        if self.value is None:
            return norm(array)
        vector, room = array.reshape(-1), np.empty(min(array.size, BLOCK), array.dtype)
        parts = blocks(0, vector.size)
        return math.hypot(*(norm(self.limit(vector[part], 1.0, room[: part.stop - part.start])) for part in parts))


def _added(addends: Sequence[float]) -> float:
    """Returns the sum, rounded after each addend; `sum` of Python 3.12 keeps what that loses, and that of 3.11 not."""
    total = 0.0
    for addend in addends:
        total += addend
    return total


def _shrink(length: float, limit: float | None) -> float:
    return 1.0 if limit is None or length <= limit else limit / length
