"""Softmax and its logarithm."""

import jax.numpy as jnp
from jax import Array

from backwire_server.xla.registry import kernel


@kernel("Softmax")
def softmax(x: Array, *, axis: int) -> Array:
    """e^x divided by its sum along the axis, computed without overflow"""
    powers = jnp.exp(_shifted(x, axis))
    return powers / jnp.sum(powers, axis, keepdims=True)


@kernel("LogSoftmax")
def log_softmax(x: Array, *, axis: int) -> Array:
    """The logarithm of Softmax, computed without overflow or cancellation"""
    shifted = _shifted(x, axis)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis, keepdims=True))


def _shifted(x: Array, axis: int) -> Array:
    return x - jnp.max(x, axis, keepdims=True, initial=-jnp.inf)
