"""The Fourier transform; a complex number is a last axis of two elements."""

import jax.numpy as jnp
from jax import Array, lax

from backwire_server.xla.registry import kernel


@kernel("FourierTransform")
def fourier_transform(x: Array, *, axis: int, inverse: int) -> Array:
    """Complex sums of x times exp(-2 pi i k n / N) along the axis, or exp(+...) / N for `inverse`"""
    wide = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    signal = lax.complex(wide[..., 0], wide[..., 1])
    found = jnp.fft.ifft(signal, axis=axis) if inverse else jnp.fft.fft(signal, axis=axis)
    return jnp.stack((found.real, found.imag), -1).astype(x.dtype)
