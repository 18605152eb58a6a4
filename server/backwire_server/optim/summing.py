"""The weighted mean of gradients that several have computed."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import compiled
from backwire_server.optim.gradients import BLOCK, norm, runs, squares_of
from backwire_server.optim.layout import Vectors
from backwire_server.optim.sharing import ALONE, Hands, Task

Array = NDArray[Any]


def divide_sum(parts: Sequence[Vectors], weights: Sequence[float], total: float, hands: Hands = ALONE) -> float:
    """Makes the vectors of the first of at least two parts the weighted sum of those of all, divided by the total.

    They are added up in the order of the parts; vectors of other parts may be written to. Those of the same dtype have
    the same size. The bits are the same for any hands.

    Returns:
        The `global_norm` of the sum: its squares are taken while it is in the processor's cache.
    """
    tasks, squares = list[Task](), dict[np.dtype[Any], Array]()
    for dtype, first in parts[0].items():
        squares[dtype] = np.empty(-(-first.size // BLOCK))
        for run in runs(first.size):
            found = squares[dtype][run.start // BLOCK : -(-run.stop // BLOCK)]
            tasks.append(partial(_divide_sum, [part[dtype][run] for part in parts], weights, total, found))
    hands.share(tasks)
    return math.hypot(*(norm(first, squares[dtype].tolist()) for dtype, first in parts[0].items()))


def _divide_sum(vectors: Sequence[Array], weights: Sequence[float], total: float, squares: Array, _: int) -> None:
    first, *others = vectors
    weight, *further = weights
    kernel = compiled.divide_sum(first.dtype, first.size) or _by_numpy
    scalar = first.dtype.type
    for place, (other, factor) in enumerate(zip(others, further, strict=True)):
        divisor = total if place == len(others) - 1 else 1.0
        kernel(first, other, scalar(1.0 if place else weight), scalar(factor), scalar(divisor))
    squares[...] = squares_of(first)


def _by_numpy(sums: Array, others: Array, weight: Any, other_weight: Any, total: Any) -> None:
    with np.errstate(all="ignore"):  # of each thread by itself
        np.multiply(sums, weight, out=sums)
        np.multiply(others, other_weight, out=others)
        np.add(sums, others, out=sums)
        np.divide(sums, total, out=sums)
