"""Activation functions, element by element."""

import jax.numpy as jnp
from jax import Array, lax

from backwire_server.xla.registry import kernel

kernel("Tanh")(jnp.tanh)


@kernel("Relu")
def relu(x: Array) -> Array:
    """max(x, 0)"""
    return jnp.maximum(x, 0)


@kernel("LeakyRelu")
def leaky_relu(x: Array, *, alpha: float) -> Array:
    """x where x >= 0, alpha x elsewhere"""
    return jnp.where(x >= 0, x, x * alpha)


@kernel("Elu")
def elu(x: Array, *, alpha: float) -> Array:
    """x where x >= 0, alpha (e^x - 1) elsewhere"""
    return jnp.where(x >= 0, x, jnp.expm1(jnp.minimum(x, 0)) * alpha)


@kernel("Sigmoid")
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), to the rounding of the dtype in both tails; half precision goes through float32"""
    if x.dtype.itemsize < 4:
        return sigmoid(x.astype(jnp.float32)).astype(x.dtype)
    return 1 / (1 + jnp.exp(-x))


@kernel("Softplus")
def softplus(x: Array) -> Array:
    """log(1 + e^x), computed without overflow"""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@kernel("Erf")
def error_function(x: Array) -> Array:
    """The error function; half precision goes through float32"""
    if x.dtype.itemsize < 4:
        return lax.erf(x.astype(jnp.float32)).astype(x.dtype)
    return lax.erf(x)
