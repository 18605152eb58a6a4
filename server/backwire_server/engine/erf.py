"""The error function by rational approximations (Cody 1969, Mathematics of Computation 23)."""

import numpy as np

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


def erf(x: Array) -> Array:
    """Returns the error function of each element, to the rounding of its dtype; half precision goes through float32."""
    if x.dtype.itemsize < 4:
        return erf(x.astype(np.float32)).astype(x.dtype)
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
