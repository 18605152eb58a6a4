"""Adam's update in a single pass over memory, compiled by numba where that is installed (extra `compiled`).

numpy needs a dozen passes for the same; the results are equal to the bit.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@cache
def adam() -> Callable[..., None] | None:
    """Returns the compiled update, None without numba.

    It takes vectors of one dtype, the parameters, their gradients and the two moments, of which it changes all but the
    gradients, and then scalars of that dtype: 1 - beta1, beta2, 1 - beta2, epsilon and the step size.
    """
    try:
        import numba
    except ImportError:
        return None
    compiled: Callable[..., None] = numba.njit(nogil=True, error_model="numpy")(_adam)
    return compiled


def _adam(
    parameters: Array,
    gradients: Array,
    first: Array,
    second: Array,
    share: Any,
    beta2: Any,
    square_share: Any,
    epsilon: Any,
    rate: Any,
) -> None:
    """The formula, element by element, in the order in which `adam._descend` does it with whole vectors."""
    for i in range(parameters.size):
        slope = gradients[i]
        first[i] = first[i] + (slope - first[i]) * share
        second[i] = second[i] * beta2 + (slope * slope) * square_share
        parameters[i] = parameters[i] - (first[i] / (math.sqrt(second[i]) + epsilon)) * rate
