"""JAX in this process: forward, backward and Adam in one compiled function, on one thread or on an accelerator."""

import functools
import math
import os
from typing import Any

# Before jax is imported: the pools of XLA have a thread per processor that they are told of.
os.environ.update(PJRT_NPROC="1", NPROC="1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
from tests.benchmarks import jax_models, values

jax.config.update("jax_default_matmul_precision", "highest")  # GPUs round operands of float32, unless told not to

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

CHECKED = "checked"

Tree = dict[str, Any]
State = tuple[Tree, Tree, Tree, Any]


class Contender:
    """Training steps as calls of a function that reuses the memory of its arguments.

    The plain ones take a batch that is on the device, and tell the loss. The variant CHECKED does what a session has
    to: it takes a batch of numpy, tells the norm of the gradients, too, and keeps its state where that is not finite.
    """

    def __init__(self, variant: str) -> None:
        self._checked = variant == CHECKED

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        loss = functools.partial(jax_models.loss, model)
        self._batch = {name: jnp.asarray(array) for name, array in values.batch(model).items()}
        parameters = jax_models.parameters(model)
        found, gradients = jax.jit(jax.value_and_grad(loss))(parameters, self._batch)
        zeros = {name: jnp.zeros_like(array) for name, array in parameters.items()}
        self._state = (parameters, zeros, {name: array.copy() for name, array in zeros.items()}, jnp.zeros(()))
        self._step = jax.jit(functools.partial(_adam_step, loss), donate_argnums=0)
        self._spare = jax.tree.map(jnp.zeros_like, self._state)
        self._checked_step = jax.jit(functools.partial(_checked_step, loss), donate_argnums=1, keep_unused=True)
        self._inputs = values.batch(model)
        as_arrays = {name: np.asarray(array) for name, array in gradients.items()}
        return {"loss": float(found), "gradients": values.fingerprint(as_arrays)}

    def run(self, steps: int) -> None:
        """As in the protocol."""
        for _ in range(steps):
            if self._checked:
                after, told = self._checked_step(self._state, self._spare, self._inputs)
                _loss, norm = np.asarray(told).tolist()
                self._state, self._spare = (after, self._state) if math.isfinite(norm) else (self._state, after)
            else:
                self._state, loss = self._step(self._state, self._batch)
                float(loss)


def _adam_step(loss: Any, state: State, batch: Tree) -> tuple[State, Any]:
    found, gradients = jax.value_and_grad(loss)(state[0], batch)
    return _adam(state, gradients), found


def _checked_step(loss: Any, state: State, _: State, batch: Tree) -> tuple[State, Any]:
    found, gradients = jax.value_and_grad(loss)(state[0], batch)
    norm = jnp.sqrt(sum(jnp.vdot(each, each) for each in gradients.values()))
    return _adam(state, gradients), jnp.stack([found, norm])


def _adam(state: State, gradients: Tree) -> State:
    parameters, first, second, count = state
    count = count + 1
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
    rate, correction = values.LEARNING_RATE / (1 - BETA1**count), jnp.sqrt(1 - BETA2**count)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) / correction + EPSILON), parameters, first, second
    )
    return parameters, first, second, count
