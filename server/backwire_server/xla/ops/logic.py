"""Comparison and conversion."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from backwire_server.engine.ops.logic import dtype_named
from backwire_server.xla.registry import kernel

UFUNCS: dict[str, Any] = {
    "Equal": jnp.equal,
    "Greater": jnp.greater,
    "GreaterOrEqual": jnp.greater_equal,
    "Less": jnp.less,
    "LessOrEqual": jnp.less_equal,
    "And": jnp.logical_and,
    "Or": jnp.logical_or,
    "Xor": jnp.logical_xor,
    "Not": jnp.logical_not,
}

for _name, _function in UFUNCS.items():
    kernel(_name)(_function)


@kernel("Cast")
def cast(x: Array, *, to: Any, saturate: int) -> Array:
    """x converted to the type `to`; floats are cut towards zero."""
    return x.astype(dtype_named(to))
