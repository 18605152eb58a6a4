"""Has JAX compile functions so that they give the same bits each time, in this process or another, on GPUs, too."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

STEADY = "xla_gpu_deterministic_ops"
"""The option of XLA that leaves out what adds in any order, and kernels that are chosen by their times."""


def jitted(function: Callable[..., Any], **options: Any) -> Any:
    """Returns `jax.jit` of a function with these options, and with those that a journal needs."""
    return jax.jit(function, compiler_options=_steady(), **options)


@cache
def _steady() -> dict[str, Any] | None:
    """Returns the options of the compiler; None on processors, which need none, and where the user chose."""
    if jax.default_backend() != "gpu" or STEADY in os.getenv("XLA_FLAGS", ""):
        return None
    return {STEADY: True}
