"""The mean of gradients that several have computed."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backwire_server.optim import compiled
from backwire_server.optim.gradients import runs
from backwire_server.optim.sharing import ALONE, Hands, Task

Array = NDArray[Any]


def divide_sum(parts: Sequence[Sequence[Array]], total: float, hands: Hands = ALONE) -> None:
    """Makes the arrays of the first part the sum of those of all parts, in their order, divided by the total.

    All arrays are C-contiguous; those at the same place have the same shape and dtype. The bits are the same for any
    hands.
    """
    tasks = list[Task]()
    for arrays in zip(*parts, strict=True):
        flat = [array.reshape(-1) for array in arrays]
        tasks += [partial(_divide_sum, [each[run] for each in flat], total) for run in runs(flat[0].size)]
    hands.share(tasks)


def _divide_sum(vectors: Sequence[Array], total: float, _: int) -> None:
    first, *others = vectors
    kernel = compiled.divide_sum(first.dtype)
    with np.errstate(all="ignore"):  # of each thread by itself
        for other in others[:-1] if kernel else others:
            np.add(first, other, out=first)
        if kernel:
            kernel(first, others[-1], first.dtype.type(total))
        else:
            np.divide(first, total, out=first)
