"""The weighted mean of gradients that several have computed."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import compiled
from backwire_server.optim.gradients import runs
from backwire_server.optim.sharing import ALONE, Hands, Task

Array = NDArray[Any]


def divide_sum(parts: Sequence[Sequence[Array]], weights: Sequence[float], total: float, hands: Hands = ALONE) -> None:
    """Makes the arrays of the first of at least two parts the weighted sum of those of all, divided by the total.

    They are added up in the order of the parts; arrays of other parts may be written to. All arrays are C-contiguous;
    those at the same place have the same shape and dtype. The bits are the same for any hands.
    """
    tasks = list[Task]()
    for arrays in zip(*parts, strict=True):
        flat = [array.reshape(-1) for array in arrays]
        tasks += [partial(_divide_sum, [each[run] for each in flat], weights, total) for run in runs(flat[0].size)]
    hands.share(tasks)


def _divide_sum(vectors: Sequence[Array], weights: Sequence[float], total: float, _: int) -> None:
    first, *others = vectors
    weight, *further = weights
    kernel = compiled.divide_sum(first.dtype) or _by_numpy
    scalar = first.dtype.type
    for place, (other, factor) in enumerate(zip(others, further, strict=True)):
        divisor = total if place == len(others) - 1 else 1.0
        kernel(first, other, scalar(1.0 if place else weight), scalar(factor), scalar(divisor))


def _by_numpy(sums: Array, others: Array, weight: Any, other_weight: Any, total: Any) -> None:
    with np.errstate(all="ignore"):  # of each thread by itself
        np.multiply(sums, weight, out=sums)
        np.multiply(others, other_weight, out=others)
        np.add(sums, others, out=sums)
        np.divide(sums, total, out=sums)
