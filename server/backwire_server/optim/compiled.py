"""Formulas in a single pass over memory, compiled by numba where that is installed (extra `compiled`).

numpy needs a pass for each operation, a dozen for Adam; the results are equal to the bit, so that numpy does it while a
thread compiles, which takes half a second or more: no step waits for that, such as the first of a server that takes
over. Only where two NaN of different signs are added up, neither says which sign is left.
"""

import math
import threading
from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kernel = Callable[..., None]

COMPILED = "f", "d"
"""The kinds of elements whose arithmetic is the same compiled as by numpy."""

_mutex = threading.Lock()
_compilations: "dict[tuple[Kernel, np.dtype[Any]], _Compilation]" = {}


def adam(dtype: "np.dtype[Any]", *, wait: bool = False) -> Kernel | None:
    """Returns the compiled update of Adam; None where there is none, and until it is compiled unless told to wait.

    It takes vectors of the dtype, the parameters, their gradients and the two moments, of which it changes all but the
    gradients, and then scalars of that dtype: 1 - beta1, beta2, 1 - beta2, epsilon and the step size.
    """
    return _found(_adam, dtype, wait)


def divide_sum(dtype: "np.dtype[Any]", *, wait: bool = False) -> Kernel | None:
    """Returns what makes the first of two vectors their weighted sum, divided by a scalar; None as for `adam`.

    It takes the vectors, and then scalars of their dtype: the weight of each, and what to divide by.
    """
    return _found(_divide_sum, dtype, wait)


def _found(formula: Kernel, dtype: "np.dtype[Any]", wait: bool) -> Kernel | None:
    found = _compilations.get((formula, dtype)) or _begun(formula, dtype)
    if wait:
        found.join()
    return found.kernel


def _begun(formula: Kernel, dtype: "np.dtype[Any]") -> "_Compilation":
    with _mutex:
        if (formula, dtype) not in _compilations:
            _compilations[formula, dtype] = _Compilation(formula, dtype)
            _compilations[formula, dtype].start()
        return _compilations[formula, dtype]


class _Compilation(threading.Thread):
    """Compiles a formula for a dtype; the process does not end in the middle of that.

    Attributes:
        kernel: What came of it; None until it is done, for other dtypes than COMPILED, and without numba.
    """

    def __init__(self, formula: Kernel, dtype: "np.dtype[Any]") -> None:
        super().__init__(name="backwire-compiler", daemon=False)
        self.kernel: Kernel | None = None
        self._formula, self._dtype = formula, dtype

    def run(self) -> None:
        if self._dtype.char not in COMPILED:
            return
        try:
            import numba
        except ImportError:
            return
        kernel: Kernel = numba.njit(nogil=True, error_model="numpy")(self._formula)
        one = np.ones(1, self._dtype)
        vectors = [each for each in signature(self._formula).parameters.values() if each.annotation is Array]
        scalars = len(signature(self._formula).parameters) - len(vectors)
        kernel(*(one.copy() for _ in vectors), *[one[0]] * scalars)
        self.kernel = kernel


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


def _divide_sum(sums: Array, others: Array, weight: Any, other_weight: Any, total: Any) -> None:
    for i in range(sums.size):
        sums[i] = (sums[i] * weight + others[i] * other_weight) / total
