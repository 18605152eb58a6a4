"""Formulas in a single pass over memory, compiled by numba where that is installed (extra `compiled`).

numpy needs a pass for each operation, a dozen for Adam; the results are equal to the bit, so that numpy does it while a
thread compiles, which takes half a second or more: no step waits for that, such as the first of a server that takes
over. Nor is it begun for a few steps of a small model. Only where two NaN of different signs are added up, neither says
which sign is left.
"""

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kernel = Callable[..., None]

COMPILED = "f", "d"
"""The kinds of elements whose arithmetic is the same compiled as by numpy."""

WORTH = 1 << 20
"""Compiled is what numpy has gone over so many elements for: at once for large models, in 250 steps for tiny ones."""

CALL = 1 << 12
"""So many elements take numpy as long as its calls do by themselves."""

_mutex = threading.Lock()
_compilations: "dict[tuple[Kernel, np.dtype[Any]], _Compilation]" = {}


def adam(dtype: "np.dtype[Any]", size: int = 0, *, wait: bool = False) -> Kernel | None:
    """Returns the compiled update of Adam; None where there is none, and until it is compiled unless told to wait.

    With a size the caller is about to go over vectors of that size, which is counted until compiling is worth it.

    It takes vectors of the dtype, the parameters, their gradients and the two moments, of which it changes all but the
    gradients, and then scalars of that dtype: 1 - beta1, beta2, 1 - beta2, epsilon and the step size.
    """
    return _found(_adam, dtype, size, wait)


def divide_sum(dtype: "np.dtype[Any]", size: int = 0, *, wait: bool = False) -> Kernel | None:
    """Returns what makes the first of two vectors their weighted sum, divided by a scalar; None as for `adam`.

    It takes the vectors, and then scalars of their dtype: the weight of each, and what to divide by.
    """
    return _found(_divide_sum, dtype, size, wait)


def _found(formula: Kernel, dtype: "np.dtype[Any]", size: int, wait: bool) -> Kernel | None:
    key = formula, dtype
    found = _compilations.get(key) or _compilations.setdefault(key, _Compilation(formula, dtype))
    if found.kernel is None and (wait or size):
        found.ask(size, wait)
    return found.kernel


class _Compilation(threading.Thread):
    """Compiles a formula for a dtype; the process does not end in the middle of that.

    Attributes:
        kernel: What came of it; None until it is done, for other dtypes than COMPILED, and without numba.
    """

    def __init__(self, formula: Kernel, dtype: "np.dtype[Any]") -> None:
        super().__init__(name="backwire-compiler", daemon=False)
        self.kernel: Kernel | None = None
        self._formula, self._dtype = formula, dtype
        self._elements = 0
        self._begun = False

    def ask(self, size: int, wait: bool) -> None:
        """Begins once numpy has gone over enough, of which this is more, or at once to wait until it is done.

        Begins later where it cannot now; who waits is told so by RuntimeError.
        """
        with _mutex:
            self._elements += size + CALL
            if not self._begun and (wait or self._elements >= WORTH):
                self._elements = 0
                with suppress(RuntimeError):  # where no thread can be started: numpy goes on in the middle of a step
                    self.start()
                    self._begun = True
        if wait:
            self.join()

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
