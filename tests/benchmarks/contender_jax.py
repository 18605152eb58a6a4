"""JAX in this process: forward, backward and Adam in one compiled function, on one thread."""

import functools
import os
from typing import Any

# Before jax is imported: the pools of XLA have a thread per processor that they are told of.
os.environ.update(PJRT_NPROC="1", NPROC="1", JAX_PLATFORMS="cpu")
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
from tests.benchmarks import jax_models, values

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

Tree = dict[str, Any]


class Contender:
    """Training steps as calls of a function that reuses the memory of its arguments."""

    def __init__(self, _: str) -> None:
        pass

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        loss = functools.partial(jax_models.loss, model)
        self._batch = {name: jnp.asarray(array) for name, array in values.batch(model).items()}
        parameters = jax_models.parameters(model)
        found, gradients = jax.jit(jax.value_and_grad(loss))(parameters, self._batch)
        zeros = {name: jnp.zeros_like(array) for name, array in parameters.items()}
        self._state = (parameters, zeros, {name: array.copy() for name, array in zeros.items()}, jnp.zeros(()))
        self._step = jax.jit(functools.partial(_adam_step, loss), donate_argnums=0)
        as_arrays = {name: np.asarray(array) for name, array in gradients.items()}
        return {"loss": float(found), "gradients": values.fingerprint(as_arrays)}

    def run(self, steps: int) -> None:
        """As in the protocol."""
        for _ in range(steps):
            self._state, loss = self._step(self._state, self._batch)
            float(loss)


def _adam_step(loss: Any, state: tuple[Tree, Tree, Tree, Any], batch: Tree) -> tuple[Any, Any]:
    parameters, first, second, count = state
    found, gradients = jax.value_and_grad(loss)(parameters, batch)
    count = count + 1
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
    rate, correction = values.LEARNING_RATE / (1 - BETA1**count), jnp.sqrt(1 - BETA2**count)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) / correction + EPSILON), parameters, first, second
    )
    return (parameters, first, second, count), found
