"""Linear algebra."""

import jax.numpy as jnp

from backwire_server.xla.registry import kernel

kernel("MatMul")(jnp.matmul)
