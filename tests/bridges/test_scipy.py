"""Formulas on the server under the optimizers of SciPy."""

import numpy as np
import pytest

import backwire as bw
import backwire.scipy

optimize = pytest.importorskip("scipy.optimize", reason="SciPy is an extra")


def rosenbrock() -> bw.Value:
    x = bw.input("x", (4,), dtype="float64")
    return bw.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


START = [1.3, 0.7, 0.8, 1.9]  # with 4 variables, others lead to a second minimum


def test_value_gradient_and_product_are_those_of_scipy(client: bw.Client) -> None:
    x, v = np.array(START), np.array([1.0, -2.0, 0.5, 3.0])
    with backwire.scipy.value_and_gradient(client, rosenbrock()) as f:
        value, gradient = f(x)
        product = f.hessian_product(x, v)
    assert value == pytest.approx(optimize.rosen(x), rel=1e-12)
    np.testing.assert_allclose(gradient, optimize.rosen_der(x), rtol=1e-12)
    np.testing.assert_allclose(product, optimize.rosen_hess_prod(x, v), rtol=1e-12)


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "CG", "SLSQP", "Newton-CG", "trust-ncg", "trust-constr"])
def test_minimize_finds_the_minimum_with_every_kind_of_method(client: bw.Client, method: str) -> None:
    curved = method in ("Newton-CG", "trust-ncg", "trust-constr")
    with backwire.scipy.value_and_gradient(client, rosenbrock()) as f:
        hessp = f.hessian_product if curved else None
        options = {"maxiter": 2000}
        found = optimize.minimize(f, START, jac=True, hessp=hessp, method=method, tol=1e-10, options=options)
    np.testing.assert_allclose(found.x, np.ones(4), atol=1e-4)


def test_the_gradient_is_that_of_finite_differences_also_across_several_variables(client: bw.Client) -> None:
    x, y = bw.input("x", ("batch", 3), dtype="float64"), bw.input("y", ("batch",), dtype="int64")
    hidden = bw.tanh(x @ bw.parameter("a", (3, 4), dtype="float64"))
    loss = bw.softmax_cross_entropy(hidden @ bw.parameter("b", (4, 2), dtype="float64"), y)
    draw = np.random.default_rng(0)
    data = {"x": draw.normal(size=(5, 3)), "y": draw.integers(2, size=5)}
    with backwire.scipy.value_and_gradient(client, loss, data, seed=3) as f:
        assert f.start.shape == (20,)
        assert optimize.check_grad(lambda x: f(x)[0], lambda x: f(x)[1], f.start) < 1e-6
        step = 1e-5 * draw.normal(size=20)
        differences = (f(f.start + step)[1] - f(f.start - step)[1]) / 2
        np.testing.assert_allclose(f.hessian_product(f.start, step), differences, rtol=1e-6, atol=1e-12)


def test_logistic_regression_is_that_of_scikit_learn(client: bw.Client) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is an extra")
    draw = np.random.default_rng(1)
    points = draw.normal(size=(80, 3))
    labels = (points @ [1.0, -2.0, 0.5] + draw.normal(size=80) > 0.3).astype(int)
    x, y = bw.input("x", ("batch", 3), dtype="float64"), bw.input("y", ("batch",), dtype="float64")
    w, b = bw.parameter("w", np.zeros(3), dtype="float64"), bw.parameter("b", 0.0, dtype="float64")
    loss = bw.sigmoid_cross_entropy(x @ w + b, y, reduction="sum") + 0.5 * bw.sum(w**2)
    with backwire.scipy.value_and_gradient(client, loss, {"x": points, "y": labels}) as f:
        found = f.unpack(optimize.minimize(f, f.start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9}).x)
    expected = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(points, labels)
    np.testing.assert_allclose(found["w"], expected.coef_[0], atol=1e-5)
    np.testing.assert_allclose(found["b"], expected.intercept_[0], atol=1e-5)


def test_a_trained_session_is_polished_and_takes_the_result(client: bw.Client) -> None:
    x = bw.input("x", ("batch", 2))
    loss = bw.mean((x @ bw.parameter("w", (2,)) - 3 * x[:, 0]) ** 2)
    data = {"x": [[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]}
    with client.create_session(loss, bw.SGD(0.1)) as session:
        session.train_step(data)
        assert session.graph is not None
        with backwire.scipy.value_and_gradient(client, session.graph, data, start=session.parameters()) as f:
            np.testing.assert_array_equal(f.start, session.parameters()["w"])
            found = optimize.minimize(f, f.start, jac=True, method="BFGS", options={"gtol": 1e-5})
            session.set_parameters(f.unpack(found.x))
        np.testing.assert_allclose(session.parameters()["w"], [3.0, 0.0], atol=1e-4)


def test_variables_choose_what_the_vector_holds_and_in_which_order(client: bw.Client) -> None:
    a, b = bw.parameter("a", [1.0, 2.0], dtype="float64"), bw.parameter("b", 3.0, dtype="float64")
    x = bw.input("x", ("n",), dtype="float64")
    loss = bw.sum(a * b) * bw.sum(x)
    start = {"x": [1.0, 1.0, 1.0]}
    with backwire.scipy.value_and_gradient(client, loss, variables=["b", "x"], start=start) as f:
        assert f.start.tolist() == [3.0, 1.0, 1.0, 1.0]
        value, gradient = f([2.0, 1.0, 0.0, 1.0])
        assert (value, gradient.tolist()) == (12.0, [6.0, 6.0, 6.0, 6.0])
        assert f.pack({"x": [4.0, 5.0, 6.0], "b": 7.0}).tolist() == [7.0, 4.0, 5.0, 6.0]


def test_a_step_beyond_single_precision_has_an_infinite_value(client: bw.Client) -> None:
    with backwire.scipy.value_and_gradient(client, bw.sum(bw.parameter("w", [1.0, 2.0]) ** 2)) as f:
        value, gradient = f([1e300, 3.0])
    assert value == np.inf
    assert gradient.tolist() == [np.inf, 6.0]


def test_what_cannot_be_done_is_refused_with_the_remedy(client: bw.Client) -> None:
    x = bw.input("x", ("n",), dtype="float64")
    w = bw.parameter("w", 1.0, dtype="float64")
    with pytest.raises(bw.NoLossError, match=r"loss=\.\.\."):
        backwire.scipy.value_and_gradient(client, bw.graph(outputs={"y": x}))
    with pytest.raises(bw.ShapeError, match="start="):
        backwire.scipy.value_and_gradient(client, bw.sum(x))
    with pytest.raises(bw.MissingInputError, match="'x'; give an array"):
        backwire.scipy.value_and_gradient(client, w * bw.sum(x))
    with pytest.raises(bw.UnknownNameError, match="'z'"):
        backwire.scipy.value_and_gradient(client, w * bw.sum(x), {"x": [1.0], "z": [1.0]})
    with backwire.scipy.value_and_gradient(client, w * bw.sum(x), {"x": [1.0]}) as f:
        with pytest.raises(bw.ShapeError, match="have 1 elements"):
            f([1.0, 2.0])
        with pytest.raises(bw.UnknownNameError, match="give exactly 'w'"):
            f.pack({"v": 1.0})


def test_the_sessions_end_with_the_context(client: bw.Client) -> None:
    before = {session.id for session in client.sessions()}
    with backwire.scipy.value_and_gradient(client, bw.parameter("w", 1.0) * 1.0) as f:
        f.hessian_product([1.0], [1.0])
        assert len({session.id for session in client.sessions()} - before) == 2
    assert {session.id for session in client.sessions()} == before
