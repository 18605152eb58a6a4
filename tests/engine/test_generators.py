"""Random generators: their distributions, what their draws depend on, and their errors."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.one_node import compute, gradients

from backwire_server.engine.errors import EngineError, InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]

COUNT = 40_000
KEY = (7, 3)


def draw(op: str, *inputs: Any, **attributes: Any) -> Array:
    return compute(op, *inputs, key=KEY, **attributes)


def test_uniform_numbers_fill_their_range_evenly() -> None:
    x = draw("RandomUniform", shape=(COUNT,), low=-1.0, high=3.0)
    assert x.dtype == np.float32
    assert -1.0 <= x.min() < x.max() < 3.0
    shares = np.histogram(x, 8, (-1.0, 3.0))[0] / COUNT
    np.testing.assert_allclose(shares, 1 / 8, atol=0.01)


def test_normal_numbers_have_the_moments_and_quantiles_of_their_distribution() -> None:
    x = draw("RandomNormal", shape=(COUNT // 2, 2), mean=5.0, scale=2.0, dtype="float64")
    assert x.dtype == np.float64
    z = (x - 5.0) / 2.0
    for power, moment in enumerate((0.0, 1.0, 0.0, 3.0), start=1):
        np.testing.assert_allclose(np.mean(z**power), moment, atol=0.1)
    np.testing.assert_allclose(np.quantile(z, [0.025, 0.5, 0.975]), [-1.96, 0.0, 1.96], atol=0.05)
    assert abs(np.mean(z[:, 0] * z[:, 1])) < 0.03


@pytest.mark.parametrize("op", ["RandomUniformLike", "RandomNormalLike"])
def test_like_forms_have_the_shape_and_type_of_their_input_unless_told_another(op: str) -> None:
    half = draw(op, np.zeros((3, 4), np.float16))
    assert half.dtype == np.float16
    assert half.shape == (3, 4)
    assert draw(op, np.zeros((2, 0), np.int64), dtype=11).dtype == np.float64


def test_bernoulli_draws_ones_as_often_as_told() -> None:
    p = np.repeat(np.array([0.0, 0.2, 0.9, 1.0]), COUNT)
    found = draw("Bernoulli", p).reshape(4, COUNT)
    assert set(np.unique(found)) == {0.0, 1.0}
    np.testing.assert_allclose(found.mean(1), [0.0, 0.2, 0.9, 1.0], atol=0.01)
    assert draw("Bernoulli", p, dtype="bool").dtype == np.bool_


def test_multinomial_draws_classes_in_proportion_and_none_without_a_chance() -> None:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[0.0, 1.0, 0.0, 3.0, 0.0], [2.0, 2.0, 4.0, 0.0, 0.0]]))
    found = draw("Multinomial", logits, sample_size=COUNT, dtype="int64")
    assert found.dtype == np.int64
    shares = np.stack([np.bincount(row, minlength=5) for row in found]) / COUNT
    np.testing.assert_allclose(shares, [[0, 0.25, 0, 0.75, 0], [0.25, 0.25, 0.5, 0, 0]], atol=0.01)
    np.testing.assert_array_equal(shares == 0, np.isneginf(logits))


@pytest.mark.parametrize("op", ["RandomUniform", "RandomNormal"])
def test_draws_follow_from_seed_and_pass_and_nothing_else(op: str) -> None:
    first = compute(op, shape=(5,), key=(1, 1))
    np.testing.assert_array_equal(compute(op, shape=(5,), key=(1, 1), training=True, seed=9.0), first)
    for key in ((2, 1), (1, 2)):
        assert not np.any(compute(op, shape=(5,), key=key) == first)


def test_two_nodes_draw_other_numbers() -> None:
    nodes = tuple(Node("RandomNormal", (), (name,), {"shape": (100,)}) for name in ("a", "b"))
    found = Model(Graph((), (), {}, nodes, {"a": "a", "b": "b"})).forward({}, {}, training=True).outputs
    assert not np.any(found["a"] == found["b"])


def test_a_sample_by_the_reparametrisation_trick_has_gradients() -> None:
    declared = (Input("mean", TensorType.of(np.float64, (4,))), Input("deviation", TensorType.of(np.float64, (4,))))
    nodes = (
        Node("RandomNormalLike", ("mean",), ("noise",)),
        Node("Mul", ("noise", "deviation"), ("scaled",)),
        Node("Add", ("mean", "scaled"), ("y",)),
    )
    model = Model(Graph(declared, (), {}, nodes, {"y": "y", "noise": "noise"}))
    done = model.forward({"mean": np.zeros(4), "deviation": np.ones(4)}, {}, training=True, key=KEY)
    found = model.backward(done, {"y": np.ones(4)}, wrt=["mean", "deviation"]).inputs
    np.testing.assert_array_equal(found["mean"], np.ones(4))
    np.testing.assert_array_equal(found["deviation"], done.outputs["noise"])


def test_no_gradient_flows_through_draws() -> None:
    p = np.full(3, 0.5)
    np.testing.assert_array_equal(gradients("Bernoulli", p, seed=np.ones(3))["x0"], np.zeros(3))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "error", "message"),
    [
        ("RandomUniform", (), {"shape": (2,), "low": 1.0, "high": 0.0}, InvalidAttribute, "must not be above high"),
        ("RandomUniform", (), {"shape": (-2,)}, InvalidAttribute, "at least 0"),
        ("RandomUniform", (), {}, InvalidAttribute, "needs the attribute 'shape'"),
        ("RandomUniform", (), {"shape": (2,), "dtype": "int32"}, InvalidAttribute, "dtype is int32"),
        ("RandomNormal", (), {"shape": (2,), "scale": -1.0}, InvalidAttribute, "not negative"),
        ("RandomNormalLike", (np.ones(2, np.int64),), {}, InvalidAttribute, "dtype is int64"),
        ("Multinomial", (np.ones((1, 2)),), {"sample_size": 0}, InvalidAttribute, "at least one sample"),
        ("Multinomial", (np.ones((1, 2)),), {"dtype": "float32"}, InvalidAttribute, "int32 or int64"),
        ("Multinomial", (np.ones((1, 0)),), {}, ShapeMismatch, "no classes"),
        ("Multinomial", (np.ones(2),), {}, ShapeMismatch, "rank must be 2"),
    ],
)
def test_malformed_generators_are_refused(
    op: str, inputs: Any, attributes: Any, error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        compute(op, *inputs, **attributes)


@pytest.mark.parametrize("op", ["Dropout", "Bernoulli", "RandomUniformLike", "RandomNormalLike", "Multinomial"])
def test_what_follows_a_draw_is_checked_before_any_size_is_known(op: str) -> None:
    declared = (Input("x", TensorType.of(np.float64, ("batch", 3))), Input("w", TensorType.of(np.float64, (4, 2))))
    nodes = (Node(op, ("x",), ("drawn",)), Node("MatMul", ("drawn", "w"), ("y",)))
    with pytest.raises(EngineError, match="MatMul"):
        Model(Graph(declared, (), {}, nodes, {"y": "y"}))
