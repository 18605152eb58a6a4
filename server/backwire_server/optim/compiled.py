"""Adam's update in a single pass over memory, compiled by numba where that is installed (extra `compiled`).

numpy needs a dozen passes for the same; the results are equal to the bit, so that numpy does it while a thread
compiles, which takes half a second or more: no step waits for that, such as the first of a server that takes over.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Update = Callable[..., None]

_mutex = threading.Lock()
_compilations: "dict[np.dtype[Any], _Compilation]" = {}


def adam(dtype: "np.dtype[Any]", *, wait: bool = False) -> Update | None:
    """Returns the compiled update; None without numba, and until it is compiled, unless it is to be waited for.

    It takes vectors of the dtype, the parameters, their gradients and the two moments, of which it changes all but the
    gradients, and then scalars of that dtype: 1 - beta1, beta2, 1 - beta2, epsilon and the step size.
    """
    found = _compilations.get(dtype) or _begun(dtype)
    if wait:
        found.join()
    return found.update


def _begun(dtype: "np.dtype[Any]") -> "_Compilation":
    with _mutex:
        if dtype not in _compilations:
            _compilations[dtype] = _Compilation(dtype)
            _compilations[dtype].start()
        return _compilations[dtype]


class _Compilation(threading.Thread):
    """Compiles the update for a dtype; the process does not end in the middle of that.

    Attributes:
        update: What came of it; None until it is done, and without numba.
    """

    def __init__(self, dtype: "np.dtype[Any]") -> None:
        super().__init__(name="backwire-compiler", daemon=False)
        self.update: Update | None = None
        self._dtype = dtype

    def run(self) -> None:
        try:
            import numba
        except ImportError:
            return
        update: Update = numba.njit(nogil=True, error_model="numpy")(_adam)
        one = np.ones(1, self._dtype)
        update(*(one.copy() for _ in range(4)), *[one[0]] * 5)
        self.update = update


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
