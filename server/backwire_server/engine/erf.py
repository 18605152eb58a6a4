"""The error function by rational approximations; for double precision those of Cody 1969, Math. of Computation 23.

For single precision one approximation of our own does, erf(x) = tanh(x P(x^2)), fitted by weighted least squares for
|x| <= 3.95, beyond which erf rounds to 1. Its relative error is 1e-7; rounding makes it 2.6e-7.
"""

import numpy as np

from backwire_server.engine.geometry import order_of
from backwire_server.engine.graph import Array

# Numerator and denominator, highest power first: |x| <= 0.46875 in x^2; up to 4 in |x|; beyond in 1 / x^2.
_NEAR = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
_FAR = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242e0,
        1.87295284992346725e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)
_SINGLE = (  # lowest power first
    1.12837922573,
    0.102769054472,
    -0.00019182691176,
    -0.000619789643679,
    8.76398989931e-05,
    -5.669035545e-06,
    1.41894247463e-07,
)
_SINGLE_END = 3.95**2
_BLOCK = 32_768  # elements at a time, so that what is computed on the way stays in the processor's cache


def erf(x: Array, out: Array | None = None) -> Array:
    """Returns the error function of each element, to the rounding of its dtype; half precision goes through float32.

    `out`, if given, lies in memory as x does, and may be x.
    """
    result = np.empty_like(x) if out is None else out
    if x.dtype == np.float64:
        np.copyto(result, _double(x))
    elif x.dtype != np.float32:
        np.copyto(result, erf(x.astype(np.float32)).astype(x.dtype))
    elif order_of(x) is None and not x.flags.c_contiguous:
        np.copyto(result, erf(np.ascontiguousarray(x)))
    else:
        order = order_of(x) or tuple(range(x.ndim))
        lined = result.transpose(order)
        found = lined if lined.flags.c_contiguous else np.empty(lined.shape, x.dtype)
        _single(x.transpose(order).reshape(-1), found.reshape(-1))
        if found is not lined:
            np.copyto(lined, found)
    return result


def _single(x: Array, out: Array) -> None:
    room = np.empty((2, min(_BLOCK, x.size)), np.float32)
    for start in range(0, x.size, _BLOCK):
        part, found = x[start : start + _BLOCK], out[start : start + _BLOCK]
        square, value = room[:, : part.size]
        np.multiply(part, part, out=square)
        np.minimum(square, _SINGLE_END, out=square)
        value.fill(_SINGLE[-1])
        for each in _SINGLE[-2::-1]:
            np.multiply(value, square, out=value)
            np.add(value, each, out=value)
        np.multiply(value, part, out=found)
        np.tanh(found, out=found)


def _double(x: Array) -> Array:
    size = np.abs(x)
    near, far = size <= 0.46875, size > 4.0
    result = np.empty_like(x)
    result[near] = x[near] * _ratio(_NEAR, x[near] ** 2)
    between = ~near & ~far
    result[between] = 1.0 - np.exp(-np.square(size[between])) * _ratio(_MIDDLE, size[between])
    inverse = 1.0 / np.square(size[far])
    tail = (1.0 / np.sqrt(np.pi, dtype=x.dtype) - inverse * _ratio(_FAR, inverse)) / size[far]
    result[far] = 1.0 - np.exp(-np.square(size[far])) * tail
    result[np.isnan(x)] = np.nan
    return np.copysign(result, x)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    numerator, denominator = (np.zeros_like(x) + each[0] for each in coefficients)
    for a in coefficients[0][1:]:
        numerator = numerator * x + a
    for b in coefficients[1][1:]:
        denominator = denominator * x + b
    return np.asarray(numerator / denominator)
