"""The JAX kernels, by family: each file has those of the file of that name in `engine.ops`."""

from backwire_server.xla.ops import (
    activation,
    arithmetic,
    bitwise,
    choice,
    linear,
    logic,
    rounding,
    trigonometry,
)

__all__ = ["activation", "arithmetic", "bitwise", "choice", "linear", "logic", "rounding", "trigonometry"]
