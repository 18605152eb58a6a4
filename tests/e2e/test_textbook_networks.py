"""The textbook's networks through the service: every gradient beside the delta rule written out in numpy."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import backwire as bw

Array = NDArray[Any]


def assert_agrees(actual: Array, formula: Any, what: str = "") -> None:
    """Equal but for the last digits that rounding in another order changes."""
    assert_allclose(actual, formula, rtol=1e-12, atol=1e-12, err_msg=what)


def parameter(name: str, value: Array) -> bw.Value:
    return bw.parameter(name, value, dtype="float64")


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def sigmoid_prime(z: Array) -> Array:
    return np.asarray(sigmoid(z) * (1 - sigmoid(z)))


def test_the_two_layer_network(client: bw.Client) -> None:
    """With L = sum((y - t)^2) / 2: delta2 = dL/dy * sigmoid'(z2), delta1 = (W2^T delta2) * sigmoid'(z1).

    Then dL/dW2 = delta2 a1^T, dL/db2 = delta2, dL/dW1 = delta1 x^T, dL/db1 = delta1.
    """
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=3), rng.uniform(size=2)
    W1, b1, W2, b2 = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=(2, 4)), rng.normal(size=2)

    A1 = bw.sigmoid(parameter("W1", W1) @ bw.input("x", (3,), dtype="float64") + parameter("b1", b1))
    Y = bw.sigmoid(parameter("W2", W2) @ A1 + parameter("b2", b2))
    L = bw.sum((Y - bw.input("t", (2,), dtype="float64")) ** 2) / 2
    with client.create_session(bw.graph(loss=L, outputs={"y": Y})) as session:
        forward = session.forward({"x": x, "t": t})
        dL_dx = forward.backward(wrt=["x"])["x"]
        gradients = session.gradients()

    z1 = W1 @ x + b1
    a1 = sigmoid(z1)
    z2 = W2 @ a1 + b2
    y = sigmoid(z2)
    assert_agrees(forward.outputs["y"], y)
    assert forward.loss == pytest.approx(np.sum((y - t) ** 2) / 2, rel=1e-12)

    dL_dy = y - t
    delta2 = dL_dy * sigmoid_prime(z2)
    delta1 = (W2.T @ delta2) * sigmoid_prime(z1)
    assert_agrees(gradients["W2"], np.outer(delta2, a1))
    assert_agrees(gradients["b2"], delta2)
    assert_agrees(gradients["W1"], np.outer(delta1, x))
    assert_agrees(gradients["b1"], delta1)
    assert_agrees(dL_dx, W1.T @ delta1)


def test_the_worked_numbers(client: bw.Client) -> None:
    """With L = sum((a1 - 1)^2) / 2: delta = (a1 - 1) * sigmoid'(z1), dW1 = outer(delta, x), db1 = delta."""
    x, W1, b1 = np.array([1.0, 2.0]), np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([0.5, 0.5])

    Z1 = parameter("W1", W1) @ bw.input("x", (2,), dtype="float64") + parameter("b1", b1)
    A1 = bw.sigmoid(Z1)
    L = bw.sum((A1 - 1) ** 2) / 2
    with client.create_session(bw.graph(loss=L, outputs={"z1": Z1, "a1": A1})) as session:
        forward = session.forward({"x": x})
        forward.backward()
        gradients = session.gradients()

    z1 = W1 @ x + b1
    a1 = sigmoid(z1)
    delta = (a1 - 1) * sigmoid_prime(z1)
    assert_agrees(forward.outputs["z1"], z1)
    assert_agrees(forward.outputs["a1"], a1)
    assert_agrees(gradients["b1"], delta)
    assert_agrees(gradients["W1"], np.outer(delta, x))

    assert_allclose(forward.outputs["z1"], [1.0, 1.6], rtol=0, atol=1e-6)
    assert_allclose(forward.outputs["a1"], [0.731059, 0.832018], rtol=0, atol=1e-6)
    assert_allclose(gradients["b1"], [-0.052877, -0.023478], rtol=0, atol=1e-6)
    assert_allclose(gradients["W1"], [[-0.052877, -0.105754], [-0.023478, -0.046955]], rtol=0, atol=1e-6)
    assert forward.loss == pytest.approx(0.050274, abs=1e-6)


SIZES = [4, 6, 5, 5, 3, 2]
LAYERS = range(1, len(SIZES))


def test_the_five_layer_network(client: bw.Client) -> None:
    """Layer by layer: delta_l = (W_(l+1)^T delta_(l+1)) * sigmoid'(z_l), dW_l = delta_l a_(l-1)^T, db_l = delta_l."""
    rng = np.random.default_rng(3)
    W = {layer: rng.normal(size=(SIZES[layer], SIZES[layer - 1])) for layer in LAYERS}
    b = {layer: rng.normal(size=SIZES[layer]) for layer in LAYERS}
    x, t = rng.normal(size=SIZES[0]), rng.uniform(size=SIZES[-1])

    A = bw.input("x", (SIZES[0],), dtype="float64")
    for layer in LAYERS:
        A = bw.sigmoid(parameter(f"W{layer}", W[layer]) @ A + parameter(f"b{layer}", b[layer]))
    L = bw.sum((A - bw.input("t", (SIZES[-1],), dtype="float64")) ** 2) / 2
    with client.create_session(L) as session:
        forward = session.forward({"x": x, "t": t})
        forward.backward()
        gradients = session.gradients()

    z, a = {}, {0: x}
    for layer in LAYERS:
        z[layer] = W[layer] @ a[layer - 1] + b[layer]
        a[layer] = sigmoid(z[layer])
    assert forward.loss == pytest.approx(np.sum((a[5] - t) ** 2) / 2, rel=1e-12)

    dL_da = a[5] - t
    for layer in reversed(LAYERS):
        delta = dL_da * sigmoid_prime(z[layer])
        assert_agrees(gradients[f"W{layer}"], np.outer(delta, a[layer - 1]), f"W{layer}")
        assert_agrees(gradients[f"b{layer}"], delta, f"b{layer}")
        dL_da = W[layer].T @ delta
    assert len(gradients) == 2 * len(LAYERS)
