"""The textbook's first pages through the service: a computation graph, a neuron and the chain rule, by hand."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import backwire as bw

Array = NDArray[Any]


def assert_agrees(actual: Array, formula: Any, what: str = "") -> None:
    """Equal but for the last digits that rounding in another order changes."""
    assert_allclose(actual, formula, rtol=1e-12, atol=1e-12, err_msg=what)


def scalar(name: str) -> bw.Value:
    return bw.input(name, (), dtype="float64")


def sigmoid(z: float | Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def test_the_graph_of_z_is_a_sum_and_a_product_of_three_inputs() -> None:
    """The formula z = (x + y) * w is q = x + y, then z = q * w."""
    x, y, w = map(scalar, "xyw")
    q = (x + y).named("q")
    graph = bw.graph(outputs={"z": (q * w).named("z")})
    assert str(graph).splitlines() == [
        "input     x: float64[]",
        "input     y: float64[]",
        "input     w: float64[]",
        "q = Add(x, y)",
        "z = Mul(q, w)",
        "output    z = z",
    ]


@pytest.mark.parametrize(("x", "y", "w"), [(2.0, 3.0, 4.0), (-2.0, 5.0, -4.0), (0.1, -0.1, 7.0)])
def test_the_partial_derivatives_of_the_graph(client: bw.Client, x: float, y: float, w: float) -> None:
    """With z = (x + y) * w: dz/dx = w, dz/dy = w, dz/dw = x + y."""
    graph = (scalar("x") + scalar("y")) * scalar("w")
    with client.create_session(graph) as session:
        forward = session.forward({"x": x, "y": y, "w": w})
        gradients = forward.backward(wrt=["x", "y", "w"])
    assert forward.loss == (x + y) * w
    assert gradients["x"] == w
    assert gradients["y"] == w
    assert gradients["w"] == x + y


def test_the_partial_derivatives_scale_with_the_gradient_that_arrives(client: bw.Client) -> None:
    """With g = dL/dz: dL/dx = g * w, dL/dy = g * w, dL/dw = g * (x + y), element by element."""
    x, y, w, g = np.random.default_rng(1).normal(size=(4, 5))
    X, Y, W = (bw.input(name, (5,), dtype="float64") for name in "xyw")
    with client.create_session(bw.graph(outputs={"z": (X + Y) * W})) as session:
        forward = session.forward({"x": x, "y": y, "w": w})
        gradients = forward.backward({"z": g}, wrt=["x", "y", "w"])
    assert_agrees(forward.outputs["z"], (x + y) * w)
    assert_agrees(gradients["x"], g * w)
    assert_agrees(gradients["y"], g * w)
    assert_agrees(gradients["w"], g * (x + y))


@pytest.mark.parametrize(("w", "b", "x", "t"), [(0.5, -0.25, 1.5, 1.0), (2.0, 2.0, 1.0, 0.0), (-1.25, 0.75, -3.0, 0.5)])
def test_one_sigmoid_neuron(client: bw.Client, w: float, b: float, x: float, t: float) -> None:
    """With y = sigmoid(w x + b), L = (y - t)^2 / 2: dL/dw = (y - t) y (1 - y) x, dL/db = (y - t) y (1 - y)."""
    W, B = bw.parameter("w", w, dtype="float64"), bw.parameter("b", b, dtype="float64")
    Y = bw.sigmoid(W * scalar("x") + B)
    L = (Y - scalar("t")) ** 2 / 2
    with client.create_session(bw.graph(loss=L, outputs={"y": Y})) as session:
        forward = session.forward({"x": x, "t": t})
        inputs = forward.backward(wrt=["x", "t"])
        parameters = session.gradients()

    y = sigmoid(w * x + b)
    assert_agrees(forward.outputs["y"], y)
    assert forward.loss == pytest.approx((y - t) ** 2 / 2, rel=1e-12)
    assert_agrees(parameters["w"], (y - t) * y * (1 - y) * x)
    assert_agrees(parameters["b"], (y - t) * y * (1 - y))
    assert_agrees(inputs["x"], (y - t) * y * (1 - y) * w)
    assert_agrees(inputs["t"], -(y - t))


def test_one_sigmoid_neuron_of_several_inputs(client: bw.Client) -> None:
    """With y = sigmoid(w . x + b) and the SDK's loss for L = (y - t)^2 / 2: dL/dw_i = (y - t) y (1 - y) x_i."""
    w, b, x, t = np.array([0.4, -0.6, 0.2]), 0.1, np.array([1.0, 2.0, -1.5]), 1.0
    W, B = bw.parameter("w", w, dtype="float64"), bw.parameter("b", b, dtype="float64")
    Y = bw.sigmoid(W @ bw.input("x", (3,), dtype="float64") + B)
    with client.create_session(bw.squared_error(Y, scalar("t"), half=True)) as session:
        session.forward({"x": x, "t": t}).backward()
        gradients = session.gradients()

    y = sigmoid(w @ x + b)
    assert_agrees(gradients["w"], (y - t) * y * (1 - y) * x)
    assert_agrees(gradients["b"], (y - t) * y * (1 - y))


class Function(NamedTuple):
    """A function as the service builds it, as numpy computes it, and its derivative."""

    build: Callable[[bw.Value], bw.Value]
    value: Callable[[Any], Any]
    derivative: Callable[[Any], Any]


FUNCTIONS = {
    "line": Function(lambda x: 3 * x + 1, lambda x: 3 * x + 1, lambda _: 3.0),
    "square": Function(lambda x: x**2, lambda x: x**2, lambda x: 2 * x),
    "sin": Function(bw.sin, np.sin, np.cos),
    "exp": Function(bw.exp, np.exp, np.exp),
    "tanh": Function(bw.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": Function(bw.sigmoid, sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
}


@pytest.mark.parametrize("inner", FUNCTIONS)
@pytest.mark.parametrize("outer", FUNCTIONS)
def test_the_chain_rule(client: bw.Client, outer: str, inner: str) -> None:
    """With L = f(g(x)): dL/dx = f'(g(x)) g'(x)."""
    f, g, x = FUNCTIONS[outer], FUNCTIONS[inner], 0.7
    with client.create_session(f.build(g.build(scalar("x")))) as session:
        forward = session.forward({"x": x})
        gradient = forward.backward(wrt=["x"])["x"]
    assert forward.loss == pytest.approx(f.value(g.value(x)), rel=1e-12)
    assert_agrees(gradient, f.derivative(g.value(x)) * g.derivative(x))


def test_the_chain_rule_one_link_at_a_time(client: bw.Client) -> None:
    """With L = f(u), u = g(x): a session that knows only f gives dL/du, one that knows only g makes dL/dx of it."""
    f, g, x = FUNCTIONS["sin"], FUNCTIONS["square"], 0.7
    with (
        client.create_session(bw.graph(outputs={"u": g.build(scalar("x"))})) as first,
        client.create_session(f.build(scalar("u"))) as second,
    ):
        into_u = first.forward({"x": x})
        into_L = second.forward({"u": into_u.outputs["u"]})
        dL_du = into_L.backward(wrt=["u"])["u"]
        dL_dx = into_u.backward({"u": dL_du}, wrt=["x"])["x"]
    assert_agrees(dL_du, f.derivative(g.value(x)))
    assert_agrees(dL_dx, f.derivative(g.value(x)) * g.derivative(x))


def test_the_chain_rule_adds_what_arrives_over_several_paths(client: bw.Client) -> None:
    """With L = u v, u = sin x, v = x^2: dL/dx = dL/du du/dx + dL/dv dv/dx = x^2 cos x + 2 x sin x."""
    X, x = scalar("x"), 0.7
    with client.create_session(bw.sin(X) * X**2) as session:
        gradient = session.forward({"x": x}).backward(wrt=["x"])["x"]
    assert_agrees(gradient, x**2 * np.cos(x) + 2 * x * np.sin(x))
