"""Floating-point numbers of two bytes: they are kept so, and added and multiplied in float32.

numpy adds them one after another in their own type, where a sum of ones stands still at 256 (bfloat16) or 2,048
(float16), and has no BLAS for them.
"""

from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray

SINGLE = np.dtype(np.float32)
BFLOAT16 = np.dtype(bfloat16)
HALF = np.dtype(np.float16)


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Tells whether this is bfloat16 or float16."""
    return dtype in (BFLOAT16, HALF)


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Returns what numbers of a type are added and multiplied in."""
    return SINGLE if is_narrow(dtype) else dtype


def single(x: NDArray[Any]) -> NDArray[Any]:
    """Returns a copy in float32 of an array of such numbers, and any other array as it is."""
    return x.astype(SINGLE) if is_narrow(x.dtype) else x
