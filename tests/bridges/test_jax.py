"""Sessions as functions of JAX."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backwire as bw

jax: Any = pytest.importorskip("jax", reason="JAX is an extra")

from jax.test_util import check_grads  # noqa: E402 - it needs JAX

import backwire.jax  # noqa: E402

jnp = jax.numpy


@pytest.fixture(autouse=True)
def _doubles() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def layer(dtype: str = "float64") -> bw.Graph:
    x = bw.input("x", ("batch", 3), dtype=dtype)
    return bw.graph(outputs={"y": bw.tanh(bw.dense(x, 4, name="layer"))})


def points(count: int, size: int = 3) -> Any:
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, size)))


def test_check_grads_passes_bare_and_jitted(client: bw.Client) -> None:
    f = backwire.jax.remote(client.create_session(layer()))
    check_grads(f, (points(2),), order=1, modes=["rev"])
    check_grads(jax.jit(f), (points(2),), order=1, modes=["rev"])


def test_check_grads_passes_for_parameters_and_several_outputs(client: bw.Client) -> None:
    x, z = bw.input("x", ("batch", 3), dtype="float64"), bw.input("z", ("batch", 2), dtype="float64")
    h = bw.tanh(bw.dense(x, 4, name="a"))
    graph = bw.graph(outputs={"y": bw.dense(h, 2, name="b") * z, "norm": bw.sum(h * h, axis=1)})
    apply, parameters = backwire.jax.functional(client, graph, seed=1)
    assert sorted(parameters) == ["a/bias", "a/weight", "b/bias", "b/weight"]
    check_grads(jax.jit(apply), (parameters, points(3), points(3, 2)), order=1, modes=["rev"])


def test_a_model_half_local_and_half_remote_learns_as_a_local_one(client: bw.Client) -> None:
    session = client.create_session(layer(), bw.SGD(0.1))
    body = backwire.jax.remote(session)
    values = session.parameters()
    inner = {"w": jnp.asarray(values["layer/weight"]), "b": jnp.asarray(values["layer/bias"])}
    x, labels = points(6, 5), jnp.arange(6) % 4
    outer = points(5, 3)

    def loss(outer: Any, function: Any) -> Any:
        scores = jax.nn.log_softmax(function(jnp.sin(x @ outer)))
        return -scores[jnp.arange(6), labels].mean()

    split = jax.jit(jax.value_and_grad(lambda outer: loss(outer, body)))
    local = jax.jit(jax.value_and_grad(lambda both: loss(both[0], lambda h: jnp.tanh(h @ both[1]["w"] + both[1]["b"]))))
    both = (outer, inner)
    for _ in range(3):
        remote_loss, slope = split(outer)
        local_loss, slopes = local(both)
        np.testing.assert_allclose(remote_loss, local_loss, rtol=1e-12)
        outer = outer - 0.1 * slope
        both = jax.tree.map(lambda value, slope: value - 0.1 * slope, both, slopes)
        body.step()
    np.testing.assert_allclose(outer, both[0], rtol=1e-9)
    np.testing.assert_allclose(session.parameters()["layer/weight"], both[1]["w"], rtol=1e-9)


def test_only_what_is_differentiated_is_a_pass_in_train_mode(client: bw.Client) -> None:
    x = bw.input("x", ("n",), dtype="float64")
    w = bw.parameter("w", 1.0, dtype="float64")
    session = client.create_session(bw.graph(outputs={"y": bw.dropout(w * x, 0.5)}))
    f = backwire.jax.remote(session)
    assert jax.jit(f)(jnp.ones(64)).tolist() == [1.0] * 64
    assert session.info().contributions == 0
    slopes = jax.jit(jax.grad(lambda x: f(x).sum()))(jnp.ones(64))
    assert sorted(set(slopes.tolist())) == [0.0, 2.0]
    assert session.info().contributions == 1
    assert not session.info().forward_ids


def test_a_pullback_goes_back_again_where_passes_are_retained(client: bw.Client) -> None:
    session = client.create_session(layer())
    x = points(2)
    jacobian = jax.jacrev(backwire.jax.remote(session, retain=True))(x)
    values = session.parameters()
    local = jax.jacrev(lambda x: jnp.tanh(x @ values["layer/weight"] + values["layer/bias"]))(x)
    np.testing.assert_allclose(jacobian, local, rtol=1e-9, atol=1e-12)
    _, back = jax.vjp(backwire.jax.remote(session), x)
    back(jnp.ones((2, 4)))
    with pytest.raises(Exception, match="its Backward used it up"):
        jax.block_until_ready(back(jnp.ones((2, 4))))


def test_vmap_calls_for_each_example(client: bw.Client) -> None:
    x = bw.input("x", (3,), dtype="float64")
    f = backwire.jax.remote(client.create_session(bw.graph(outputs={"y": bw.sum(x * x)})))
    np.testing.assert_allclose(jax.vmap(f)(points(4)), (points(4) ** 2).sum(1))
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(points(4)), 2 * points(4))


def test_integers_go_in_and_out_without_gradients(client: bw.Client) -> None:
    scores, label = bw.input("scores", ("n", 3), dtype="float64"), bw.input("label", ("n",), dtype="int64")
    loss = bw.softmax_cross_entropy(scores, label)
    session = client.create_session(bw.graph(loss=loss, outputs={"doubled": label * 2}))
    f = backwire.jax.remote(session, outputs=["loss", "doubled"])
    labels = jnp.array([0, 2], "int32")
    (found, doubled), slope = jax.value_and_grad(f, has_aux=True)(points(2), labels)
    assert (doubled.dtype, doubled.tolist()) == (np.int64, [0, 4])
    expected = jax.grad(lambda x: -jax.nn.log_softmax(x)[jnp.arange(2), labels].mean())(points(2))
    np.testing.assert_allclose(slope, expected, rtol=1e-9)
    assert found == f(points(2), label=labels)[0]


def test_only_gradients_that_are_needed_travel(client: bw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    x = bw.input("x", ("n", 3), dtype="float64")
    y = x @ bw.parameter("w", np.ones(3), dtype="float64")
    apply, parameters = backwire.jax.functional(client, bw.graph(outputs={"y": y, "z": 2 * y}))
    sent = []
    backward = bw.Forward.backward

    def recording(self: bw.Forward, given: Any, wrt: Any, **settings: Any) -> Any:
        sent.append((sorted(given), sorted(wrt)))
        return backward(self, given, wrt, **settings)

    monkeypatch.setattr(bw.Forward, "backward", recording)
    slopes = jax.jit(jax.grad(lambda w, x: apply(w, x)[0].sum()))(parameters, jnp.ones((2, 3)))
    assert slopes["w"].tolist() == [2.0, 2.0, 2.0]
    assert jax.grad(lambda x: apply(parameters, x)[1].sum())(jnp.ones((1, 3))).tolist() == [[2.0, 2.0, 2.0]]
    assert sent == [(["y"], ["w"]), (["z"], ["x"])]


def test_single_precision_stays_and_large_arrays_pass_through_jit(client: bw.Client) -> None:
    jax.config.update("jax_enable_x64", False)
    x = bw.input("x", ("n", 1000))
    f = backwire.jax.remote(client.create_session(bw.graph(outputs={"y": x * x})))
    array = jnp.ones((2000, 1000))
    slope = jax.jit(jax.grad(lambda x: f(x * 1.5).sum()))(array)
    assert slope.dtype == jnp.float32
    np.testing.assert_array_equal(slope, np.full((2000, 1000), 4.5, "float32"))


def test_what_cannot_be_done_is_refused_with_the_remedy(client: bw.Client) -> None:
    session = client.create_session(layer())
    f = backwire.jax.remote(session)
    with pytest.raises(bw.InvalidRequestError, match="takes each once: x"):
        f(points(1), points(1))
    with pytest.raises(bw.UnknownNameError, match="no output 'z'; it has y"):
        backwire.jax.remote(session, outputs=["z"])
    with pytest.raises(bw.InvalidRequestError, match="pass graph="):
        backwire.jax.remote(client.session(session.id))
    found = backwire.jax.remote(client.session(session.id), graph=layer())(points(1))
    np.testing.assert_array_equal(found, f(points(1)))
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(bw.DTypeError, match="jax_enable_x64"):
        f(np.ones((1, 3)))
