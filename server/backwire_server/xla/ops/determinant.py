"""The determinant and what its gradients are made of."""

import jax.numpy as jnp
from jax import Array

from backwire_server.xla.registry import kernel


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


@kernel("Det")
def det(x: Array) -> Array:
    """The determinant of the matrices in the last two axes"""
    return jnp.linalg.det(_wide(x)).astype(x.dtype)


@kernel("Cofactor")
def cofactor(x: Array) -> Array:
    """The gradient of the determinant: det(x) times the transposed inverse, from the singular values of x"""
    u, s, vh = jnp.linalg.svd(_wide(x))
    others = jnp.where(jnp.eye(s.shape[-1], dtype=bool), 1, s[..., None, :]).prod(-1)
    sign = jnp.linalg.det(u) * jnp.linalg.det(vh)
    return ((u * (others * sign[..., None])[..., None, :]) @ vh).astype(x.dtype)


@kernel("Inverse")
def inverse(x: Array) -> Array:
    """The inverse of the matrices in the last two axes; not a number where there is none"""
    regular = (jnp.linalg.det(_wide(x)) != 0)[..., None, None]
    safe = jnp.where(regular, _wide(x), jnp.eye(x.shape[-1], dtype=_wide(x).dtype))
    return jnp.where(regular, jnp.linalg.inv(safe), jnp.nan).astype(x.dtype)
