"""Gradients as part of a graph, through the service: Hessian-vector products and gradient penalties by formula."""

import numpy as np
import pytest

import backwire as bw

DRAW = np.random.default_rng(3)


def test_hessian_vector_product(client: bw.Client) -> None:
    """F = sum(x^4) / 12 + (x . a)^2 / 2 has the Hessian diag(x^2) + a a^T."""
    x, v = (bw.input(name, (5,), dtype="float64") for name in "xv")
    a = bw.parameter("a", DRAW.normal(size=5), dtype="float64")
    f = bw.sum(x**4) / 12 + bw.sum(x * a) ** 2 / 2
    (slope,) = bw.gradient(f, [x])
    (product,) = bw.gradient(bw.sum(slope * v), [x])
    session = client.create_session(bw.graph(outputs={"slope": slope, "product": product}))
    at, direction, weights = DRAW.normal(size=5), DRAW.normal(size=5), session.parameters()["a"]
    outputs = session.forward({"x": at, "v": direction}, mode="eval").outputs
    np.testing.assert_allclose(outputs["slope"], at**3 / 3 + weights * (at @ weights), rtol=1e-12)
    np.testing.assert_allclose(outputs["product"], at**2 * direction + weights * (direction @ weights), rtol=1e-12)


def test_gradient_penalty_trains(client: bw.Client) -> None:
    """L = (|w| - 1)^2 for the critic x . w: its gradient is 2 (|w| - 1) w / |w|, whatever x is."""
    x = bw.input("x", ("batch", 4), dtype="float64")
    start = DRAW.normal(size=4)
    w = bw.parameter("w", start, dtype="float64")
    (slope,) = bw.gradient(bw.sum(x @ w), [x])
    norms = bw.sqrt(bw.sum(slope**2, axis=1))
    session = client.create_session(bw.mean((norms - 1.0) ** 2), optimizer=bw.SGD(0.1))
    session.forward({"x": DRAW.normal(size=(3, 4))}).backward()
    norm = np.linalg.norm(start)
    np.testing.assert_allclose(session.gradients()["w"], 2 * (norm - 1) * start / norm, rtol=1e-12)
    session.step()
    for _ in range(60):
        session.train_step({"x": DRAW.normal(size=(3, 4))})
    assert np.linalg.norm(session.parameters()["w"]) == pytest.approx(1.0, abs=1e-3)


def test_several_values_at_once_and_one_without_a_path(client: bw.Client) -> None:
    x, y, z = (bw.input(name, (2,), dtype="float64") for name in "xyz")
    by_x, by_h, by_z = bw.gradient(bw.sum((h := x * y) * h), [x, h, z])
    session = client.create_session(bw.graph(outputs={"x": by_x, "h": by_h, "z": by_z}))
    a, b = DRAW.normal(size=(2, 2))
    outputs = session.forward({"x": a, "y": b, "z": a}, mode="eval").outputs
    np.testing.assert_allclose(outputs["x"], 2 * a * b * b, rtol=1e-12)
    np.testing.assert_allclose(outputs["h"], 2 * a * b, rtol=1e-12)
    assert outputs["z"].tolist() == [0.0, 0.0]


def test_what_has_no_gradient_is_refused_where_it_is_written() -> None:
    x, i = bw.input("x", (2,)), bw.input("i", (2,), dtype="int64")
    with pytest.raises(bw.DTypeError, match="not floating-point"):
        bw.gradient(bw.sum(x), [i])
    with pytest.raises(bw.GraphError, match="xs is empty"):
        bw.gradient(bw.sum(x), [])
    with pytest.raises(bw.GraphError, match="cannot be differentiated by"):
        bw.gradient(bw.sum(x), [bw.constant([1.0])])
