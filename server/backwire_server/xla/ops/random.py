"""Randomness: the same bits as numpy's, by the counter-based generator Philox (Salmon et al. 2011)."""

from math import prod

import jax.numpy as jnp
import numpy as np
from jax import Array

from backwire_server.xla.registry import kernel

ROUNDS = 10
FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@kernel("RandomStream")
def random_stream(key: Array, *, shape: tuple[int, ...], dtype: str, stream: int) -> Array:
    """Uniform numbers in [0, 1) from Philox under the key, of 53 bits in float64, else of 24"""
    count = prod(shape)
    if dtype == "float64":
        return ((_words(key, count, stream) >> 11) * 2.0**-53).reshape(shape)
    words = _words(key, -(-count // 2), stream)
    halves = jnp.stack((words & 0xFFFFFFFF, words >> 32), -1).reshape(-1)[:count].astype(jnp.uint32)
    return ((halves >> 8).astype(jnp.float32) * np.float32(2.0**-24)).reshape(shape).astype(dtype)


def _words(key: Array, count: int, stream: int) -> Array:
    """Returns the first `count` 64-bit words; each block of four is made of its number, counted from 1."""
    number = jnp.arange(1, -(-count // 4) + 1, dtype=jnp.uint64)
    zero = jnp.zeros_like(number)
    lanes = (number, zero, zero, jnp.full_like(number, stream))
    for turn in range(ROUNDS):
        first, second = (key[each] + jnp.uint64(STEPS[each] * turn % 2**64) for each in range(2))
        high, low = zip(*(_product(lanes[2 * each], FACTORS[each]) for each in range(2)), strict=True)
        lanes = (high[1] ^ lanes[1] ^ first, low[1], high[0] ^ lanes[3] ^ second, low[0])
    return jnp.stack(lanes, -1).reshape(-1)[:count]


def _product(x: Array, factor: int) -> tuple[Array, Array]:
    """Returns the upper and the lower 64 bits of x times the factor."""
    mask = jnp.uint64(0xFFFFFFFF)
    high, low = jnp.uint64(factor >> 32), jnp.uint64(factor & 0xFFFFFFFF)
    upper, lower = x >> 32, x & mask
    middle = lower * high + (lower * low >> 32)
    across = upper * low + (middle & mask)
    return upper * high + (middle >> 32) + (across >> 32), x * jnp.uint64(factor)
