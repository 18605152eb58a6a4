"""Trigonometric and hyperbolic functions and their inverses, element by element."""

import numpy as np

from backwire_server.engine.ops.arithmetic import unary
from backwire_server.engine.values import O

unary("Tan", np.tan, lambda g, y, x: g * (1.0 + y * y), "the tangent of x in radians", low=-1.2, high=1.2)
unary("Sinh", np.sinh, lambda g, y, x: g * O.Cosh(x), "the hyperbolic sine of x")
unary("Cosh", np.cosh, lambda g, y, x: g * O.Sinh(x), "the hyperbolic cosine of x")
unary(
    "Asin",
    np.arcsin,
    lambda g, y, x: g / O.Sqrt(1.0 - x * x),
    "the angle in radians whose sine is x",
    low=-0.8,
    high=0.8,
)
unary(
    "Acos",
    np.arccos,
    lambda g, y, x: -g / O.Sqrt(1.0 - x * x),
    "the angle in radians whose cosine is x",
    low=-0.8,
    high=0.8,
)
unary("Atan", np.arctan, lambda g, y, x: g / (1.0 + x * x), "the angle in radians whose tangent is x")
unary("Asinh", np.arcsinh, lambda g, y, x: g / O.Sqrt(x * x + 1.0), "the number whose hyperbolic sine is x")
unary(
    "Acosh",
    np.arccosh,
    lambda g, y, x: g / O.Sqrt(x * x - 1.0),
    "the number, at least 0, whose hyperbolic cosine is x",
    low=1.3,
    high=3.0,
)
unary(
    "Atanh",
    np.arctanh,
    lambda g, y, x: g / (1.0 - x * x),
    "the number whose hyperbolic tangent is x",
    low=-0.8,
    high=0.8,
)
