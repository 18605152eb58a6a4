"""Kernels that run on the host in the midst of a compiled program: what a shape that depends on elements needs."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Array as Known


def on_host(
    numpy_kernel: Callable[..., Any], results: tuple[Known, ...], *inputs: Array, **attributes: Any
) -> tuple[Array, ...]:
    """Calls a numpy kernel when the program runs, and returns its outputs, of the types that `results` have.

    Elements that the numpy kernel does not accept are for the caller to refuse: here `results` are then returned.
    """

    def call(*arrays: Any) -> tuple[Known, ...]:
        try:
            with np.errstate(all="ignore"):
                found = numpy_kernel(*map(np.asarray, arrays), **attributes)
        except InvalidValue:
            return results
        return tuple(found) if isinstance(found, tuple) else (found,)

    types = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in results)
    outputs: tuple[Array, ...] = jax.pure_callback(call, types, *inputs)
    return outputs
