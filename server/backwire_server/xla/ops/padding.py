"""Padding with a constant; the other modes of Pad pick elements."""

from jax import Array, lax

from backwire_server.xla.registry import kernel


@kernel("ConstantPad")
def constant_pad(x: Array, value: Array, *, pads: tuple[int, ...]) -> Array:
    """x with the value added around it; negative pads cut."""
    around = [(pads[axis], pads[axis + x.ndim], 0) for axis in range(x.ndim)]
    return lax.pad(x, value.reshape(()).astype(x.dtype), around)
