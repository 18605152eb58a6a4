"""Rules that PyTorch lacks give optax's parameters, to a few roundings, after 50 steps in both dtypes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backwire_server import optim

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def optax_train(run: Any, transform: Any) -> dict[str, Any]:
    parameters = {name: jax.numpy.asarray(array) for name, array in run.parameters.items()}
    state = transform.init(parameters)
    update = jax.jit(transform.update)
    for gradients in run.gradients:
        updates, state = update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return {name: np.asarray(array) for name, array in parameters.items()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.99), (0.5, 0.9)])
def test_lion(beta1: float, beta2: float, weight_decay: float, run: Any, assert_close: Any) -> None:
    ours = run.train(optim.Optimizer(0.01, optim.Lion(beta1, beta2, weight_decay=weight_decay)))
    assert_close(ours, optax_train(run, optax.lion(0.01, beta1, beta2, weight_decay=weight_decay)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("beta1", "beta2", "epsilon"), [(0.9, 0.999, 1e-6), (0.5, 0.9, 1e-3)])
def test_lamb(beta1: float, beta2: float, epsilon: float, weight_decay: float, run: Any, assert_close: Any) -> None:
    ours = run.train(optim.Optimizer(0.01, optim.Lamb(beta1, beta2, epsilon, weight_decay=weight_decay)))
    assert_close(ours, optax_train(run, optax.lamb(0.01, beta1, beta2, epsilon, weight_decay=weight_decay)))


def test_lamb_takes_the_bare_step_where_a_norm_is_zero(run: Any, assert_close: Any) -> None:
    run.parameters["weight"][...] = 0
    for gradients in run.gradients[:3]:
        gradients["bias"][...] = 0
    ours = run.train(optim.Optimizer(0.01, optim.Lamb()))
    assert_close(ours, optax_train(run, optax.lamb(0.01)))


def test_clipping_by_global_norm(run: Any, assert_close: Any) -> None:
    ours = run.train(optim.Optimizer(0.1, optim.Sgd(momentum=0.9), optim.Clipping(global_norm=0.7)))
    assert_close(ours, optax_train(run, optax.chain(optax.clip_by_global_norm(0.7), optax.sgd(0.1, 0.9))))
