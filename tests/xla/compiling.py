"""Compiles programs that run once."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax

CHEAP = {"xla_cpu_use_fusion_emitters": False}
"""Has XLA write loops in its older way, which takes a third of the time to compile; what they compute is the same."""


def compiled(run: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, compiled at its first call with as little work as possible."""
    made: Callable[..., Any] = jax.jit(run, compiler_options=_options())
    return made


@cache
def _options() -> Mapping[str, bool]:
    """CHEAP, where this release of XLA still has the older way."""
    try:
        jax.jit(lambda: 0, compiler_options=CHEAP)()
    except jax.errors.JaxRuntimeError:
        return {}
    return CHEAP
