"""Trigonometric and hyperbolic functions and their inverses, element by element."""

from typing import Any

import jax.numpy as jnp

from backwire_server.xla.registry import kernel

UFUNCS: dict[str, Any] = {
    "Tan": jnp.tan,
    "Sinh": jnp.sinh,
    "Cosh": jnp.cosh,
    "Asin": jnp.arcsin,
    "Acos": jnp.arccos,
    "Atan": jnp.arctan,
    "Asinh": jnp.arcsinh,
    "Acosh": jnp.arccosh,
    "Atanh": jnp.arctanh,
}

for _name, _function in UFUNCS.items():
    kernel(_name)(_function)
