"""The textbook's descent through the service: three update rules beside their formulas, and linear regression."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import backwire as bw

Array = NDArray[Any]
Parameters = dict[str, Array]

LR, MU, BETA1, BETA2, EPSILON = 0.05, 0.9, 0.9, 0.999, 1e-8

rng = np.random.default_rng(4)
X = rng.normal(size=(32, 3))
T = np.sin(X @ rng.normal(size=(3, 2)))
START = {
    "W1": rng.normal(size=(3, 5)),
    "b1": rng.normal(size=5),
    "W2": rng.normal(size=(5, 2)),
    "b2": rng.normal(size=2),
}


def assert_agrees(actual: Array, formula: Any, what: str = "") -> None:
    """Equal but for the last digits that rounding in another order changes."""
    assert_allclose(actual, formula, rtol=1e-12, atol=1e-12, err_msg=what)


def network() -> bw.Value:
    """L = mean((tanh(X W1 + b1) W2 + b2 - T)^2)."""
    W1, b1, W2, b2 = (bw.parameter(name, value, dtype="float64") for name, value in START.items())
    hidden = bw.tanh(bw.input("x", ("batch", 3), dtype="float64") @ W1 + b1)
    return bw.mean((hidden @ W2 + b2 - bw.input("t", ("batch", 2), dtype="float64")) ** 2)


def loss_and_gradients(p: Parameters) -> tuple[float, Parameters]:
    """The same network in numpy: examples are rows, so dL/dW2 = A1^T Delta2 and dL/dW1 = X^T Delta1."""
    A1 = np.tanh(X @ p["W1"] + p["b1"])
    error = A1 @ p["W2"] + p["b2"] - T
    Delta2 = 2 * error / error.size
    Delta1 = (Delta2 @ p["W2"].T) * (1 - A1**2)
    gradients = {"W1": X.T @ Delta1, "b1": Delta1.sum(axis=0), "W2": A1.T @ Delta2, "b2": Delta2.sum(axis=0)}
    return float(np.mean(error**2)), gradients


class State(NamedTuple):
    """A parameter with its two moments after t steps."""

    p: Array
    m: Array | float = 0.0
    v: Array | float = 0.0
    t: int = 0


def gradient_descent(state: State, dW: Array) -> State:
    """W = W - lr dW."""
    return state._replace(p=state.p - LR * dW)


def momentum(state: State, dW: Array) -> State:
    """W = W - lr m with m = mu m + dW."""
    m = MU * state.m + dW
    return state._replace(p=state.p - LR * m, m=m)


def adam(state: State, dW: Array) -> State:
    """W = W - lr m_hat / (sqrt(v_hat) + epsilon) with m = beta1 m + (1 - beta1) dW, v = beta2 v + (1 - beta2) dW^2.

    As both start at zero, m_hat = m / (1 - beta1^t) and v_hat = v / (1 - beta2^t).
    """
    t = state.t + 1
    m = BETA1 * state.m + (1 - BETA1) * dW
    v = BETA2 * state.v + (1 - BETA2) * dW**2
    m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
    return State(state.p - LR * m_hat / (np.sqrt(v_hat) + EPSILON), m, v, t)


RULES: dict[str, tuple[bw.Optimizer, Callable[[State, Array], State]]] = {
    "gradient descent": (bw.SGD(LR), gradient_descent),
    "momentum": (bw.SGD(LR, momentum=MU), momentum),
    "Adam": (bw.Adam(LR, beta1=BETA1, beta2=BETA2, epsilon=EPSILON), adam),
}


def test_one_step_of_gradient_descent(client: bw.Client) -> None:
    """W = W - lr dW, and nothing else moves or stays."""
    _, dW = loss_and_gradients(START)
    with client.create_session(network(), optimizer=bw.SGD(LR)) as session:
        session.forward({"x": X, "t": T}).backward()
        session.step()
        learned = session.parameters()
    assert learned.keys() == START.keys()
    for name, W in START.items():
        assert_agrees(learned[name], W - LR * dW[name], name)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_updates_as_its_formula_says(client: bw.Client, rule: str) -> None:
    """Ten steps of gradient descent, of momentum and of Adam, each beside the formula of that name above."""
    optimizer, update = RULES[rule]
    states = {name: State(value) for name, value in START.items()}
    with client.create_session(network(), optimizer=optimizer) as session:
        for t in range(1, 11):
            loss, gradients = loss_and_gradients({name: state.p for name, state in states.items()})
            states = {name: update(state, gradients[name]) for name, state in states.items()}
            assert session.train_step({"x": X, "t": T}).loss == pytest.approx(loss, rel=1e-12)
            for name, learned in session.parameters().items():
                assert_agrees(learned, states[name].p, f"{name} after step {t}")


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_lowers_the_loss_of_the_same_problem(client: bw.Client, rule: str) -> None:
    """Gradient descent, momentum and Adam from the same parameters on the same data."""
    optimizer, _ = RULES[rule]
    with client.create_session(network(), optimizer=optimizer) as session:
        losses = [session.train_step({"x": X, "t": T}).loss for _ in range(200)]
    assert losses[0] == pytest.approx(loss_and_gradients(START)[0], rel=1e-12)
    assert losses[-1] < 0.2 * losses[0]


def test_linear_regression_by_mini_batches_recovers_the_true_weights(client: bw.Client) -> None:
    """From y = X w + b + noise, mini-batch gradient descent on L = mean((X w + b - y)^2) ends at the true w and b."""
    draws = np.random.default_rng(5)
    w, b, deviation = np.array([2.0, -3.5, 0.75]), 1.25, 0.1
    features = draws.normal(size=(1000, 3))
    targets = features @ w + b + deviation * draws.normal(size=1000)

    W, B = bw.parameter("w", (3,), dtype="float64"), bw.parameter("b", (), dtype="float64")
    prediction = bw.input("x", ("batch", 3), dtype="float64") @ W + B
    L = bw.squared_error(prediction, bw.input("y", ("batch",), dtype="float64"))
    with client.create_session(L, optimizer=bw.SGD(0.05)) as session:
        start = session.forward({"x": features, "y": targets}, mode="eval").loss
        for _ in range(8):
            for batch in np.split(draws.permutation(1000), 1000 // 40):
                session.train_step({"x": features[batch], "y": targets[batch]})
        learned = session.parameters()
        end = session.forward({"x": features, "y": targets}, mode="eval").loss

    assert_allclose(learned["w"], w, rtol=0, atol=0.03)
    assert_allclose(learned["b"], b, rtol=0, atol=0.03)
    assert start is not None
    assert start > 10
    assert end == pytest.approx(deviation**2, rel=0.15)
