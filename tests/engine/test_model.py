"""A model checks what it is given, runs passes, and differentiates them in every way that was asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.errors import MissingInput
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]
X = Input("x", TensorType.of("float64", ("batch", 3)))
T = Input("t", TensorType.of("int64", ("batch",)))
W = Parameter("w", TensorType.of("float64", (3, 4)))
B = Parameter("b", TensorType.of("float64", (4,)))
CLASSIFIER = Graph(
    inputs=(X, T),
    parameters=(W, B),
    nodes=(
        Node("Gemm", ("x", "w", "b"), ("z",)),
        Node("Tanh", ("z",), ("h",)),
        Node("SoftmaxCrossEntropyLoss", ("h", "t"), ("l",)),
        Node("ArgMax", ("h",), ("guess",), {"axis": 1}),
    ),
    outputs={"h": "h", "guess": "guess"},
    loss="l",
)
DRAW = np.random.default_rng(0)
VALUES: dict[str, Array] = {"w": DRAW.normal(size=(3, 4)), "b": DRAW.normal(size=4)}


def batch(size: int = 5) -> dict[str, Array]:
    return {"x": DRAW.normal(size=(size, 3)), "t": np.arange(size) % 4}


def loss_at(values: Mapping[str, Array], inputs: Mapping[str, Array]) -> float:
    loss = Model(CLASSIFIER).forward(inputs, values, training=True).loss
    assert loss is not None
    return loss


def test_forward_and_backward_agree_with_finite_differences() -> None:
    model, inputs = Model(CLASSIFIER), batch()
    gradients = model.backward(model.forward(inputs, VALUES, training=True), wrt=["x"])
    for group, values, found in (("parameters", VALUES, gradients.parameters), ("inputs", inputs, gradients.inputs)):
        for name, gradient in found.items():
            for place in np.ndindex(gradient.shape):
                sides = []
                for step in (1e-6, -1e-6):
                    moved = {key: value.copy() for key, value in values.items()}
                    moved[name][place] += step
                    whole = {"parameters": (moved, inputs), "inputs": (VALUES, moved)}[group]
                    sides.append(loss_at(*whole))
                assert gradient[place] == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=1e-8)


def test_gradients_of_outputs_replace_the_loss() -> None:
    model, inputs = Model(CLASSIFIER), batch()
    forward = model.forward(inputs, VALUES, training=True)
    seed = DRAW.normal(size=(5, 4))
    found = model.backward(forward, {"h": seed}, ["x"])
    delta = seed * (1 - forward.outputs["h"] ** 2)
    np.testing.assert_allclose(found.parameters["w"], inputs["x"].T @ delta, rtol=1e-12)
    np.testing.assert_allclose(found.parameters["b"], delta.sum(0), rtol=1e-12)
    np.testing.assert_allclose(found.inputs["x"], delta @ VALUES["w"].T, rtol=1e-12)


def test_loss_and_outputs_can_be_differentiated_together() -> None:
    model, inputs = Model(CLASSIFIER), batch()
    forward = model.forward(inputs, VALUES, training=True)
    seed = DRAW.normal(size=(5, 4))
    both = model.backward(forward, {"h": seed, "loss": np.array(2.0)}).parameters["w"]
    alone = model.backward(forward).parameters["w"]
    other = model.backward(forward, {"h": seed}).parameters["w"]
    np.testing.assert_allclose(both, 2 * alone + other, rtol=1e-12)


def test_a_pass_can_be_differentiated_again_with_the_same_bits() -> None:
    model, inputs = Model(CLASSIFIER), batch()
    forward = model.forward(inputs, VALUES, training=True)
    first, second = (model.backward(forward).parameters for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_eval_needs_only_what_the_outputs_depend_on() -> None:
    model = Model(CLASSIFIER)
    inputs = batch()
    result = model.forward({"x": inputs["x"]}, VALUES, training=False, outputs=["guess"])
    assert result.loss is None
    assert list(result.outputs) == ["guess"]
    assert model.forward(inputs, VALUES, training=False).loss == loss_at(VALUES, inputs)
    with pytest.raises(MissingInput, match="'t' is missing"):
        model.forward({"x": inputs["x"]}, VALUES, training=True)


def test_shapes_that_depend_on_the_elements_of_an_input() -> None:
    shape = Input("shape", TensorType.of("int64", (2,)))
    graph = Graph(inputs=(X, shape), nodes=(Node("Reshape", ("x", "shape"), ("y",)),), outputs={"y": "y"})
    model, x = Model(graph), DRAW.normal(size=(4, 3))
    for sizes in ([2, 6], [3, 4], [2, 6], [-1, 2]):
        forward = model.forward({"x": x, "shape": np.array(sizes)}, {}, training=True)
        np.testing.assert_array_equal(forward.outputs["y"], x.reshape(sizes))
        seed = DRAW.normal(size=forward.outputs["y"].shape)
        np.testing.assert_array_equal(model.backward(forward, {"y": seed}, ["x"]).inputs["x"], seed.reshape(4, 3))


def test_dropout_follows_key_and_mode() -> None:
    graph = Graph(inputs=(X,), nodes=(Node("Dropout", ("x",), ("y",)),), outputs={"y": "y"})
    model, ones = Model(graph), np.ones((400, 3))
    first = model.forward({"x": ones}, {}, training=True, key=(1, 0))
    again = model.forward({"x": ones}, {}, training=True, key=(1, 0)).outputs["y"]
    other = model.forward({"x": ones}, {}, training=True, key=(1, 1)).outputs["y"]
    assert np.array_equal(first.outputs["y"], again)
    assert not np.array_equal(first.outputs["y"], other)
    assert set(np.unique(again)) == {0.0, 2.0}
    assert 0.8 < again.mean() < 1.2
    assert np.array_equal(model.forward({"x": ones}, {}, training=False).outputs["y"], ones)
    gradient = model.backward(first, {"y": ones}, ["x"]).inputs["x"]
    assert np.array_equal(gradient, first.outputs["y"])


def test_two_dropouts_draw_different_masks() -> None:
    nodes = (Node("Dropout", ("x",), ("a",)), Node("Dropout", ("x",), ("b",)))
    model = Model(Graph(inputs=(X,), nodes=nodes, outputs={"a": "a", "b": "b"}))
    outputs = model.forward({"x": np.ones((100, 3))}, {}, training=True).outputs
    assert not np.array_equal(outputs["a"], outputs["b"])


def test_an_output_that_is_a_parameter_is_a_copy() -> None:
    nodes = (Node("Transpose", ("w",), ("y",)),)
    model = Model(Graph(parameters=(W,), nodes=nodes, outputs={"w": "w", "y": "y"}))
    vector = np.arange(12.0)
    outputs = model.forward({}, {"w": vector.reshape(3, 4)}, training=False).outputs
    vector[:] = -1
    assert outputs["w"].min() == 0
    assert outputs["y"].min() == 0


def test_a_graph_without_loss_or_floating_point_outputs_still_runs_in_train_mode() -> None:
    graph = Graph(inputs=(X,), nodes=(Node("ArgMax", ("x",), ("i",)),), outputs={"i": "i"})
    assert Model(graph).forward({"x": np.ones((2, 3))}, {}, training=True).outputs["i"].shape == (1, 3)


def test_many_shapes_do_not_fill_memory() -> None:
    model = Model(CLASSIFIER)
    for size in range(1, 200):
        model.forward(batch(size), VALUES, training=True)
    assert len(model._plans) <= 64


def test_nothing_becomes_float64_on_the_way() -> None:
    def narrow(item: Any) -> TensorType:
        return TensorType(np.dtype("f4"), item.type.shape)

    graph = Graph(
        inputs=(Input("x", narrow(X)), T),
        parameters=(Parameter("w", narrow(W)), Parameter("b", narrow(B))),
        nodes=CLASSIFIER.nodes,
        outputs=CLASSIFIER.outputs,
        loss="l",
    )
    model, inputs = Model(graph), batch()
    values = {name: value.astype("f4") for name, value in VALUES.items()}
    forward = model.forward({**inputs, "x": inputs["x"].astype("f4")}, values, training=True)
    found = model.backward(forward, wrt=["x"])
    arrays = [*forward.residuals.values(), *found.parameters.values(), *found.inputs.values()]
    assert {array.dtype.name for array in arrays if array.dtype.kind == "f"} == {"float32"}


def test_gradients_inside_a_graph_can_be_used_and_differentiated() -> None:
    """A gradient penalty: L = sum((dE/dx)^2) with E = sum((x w)^3), so dE/dx = 3 (x w)^2 w^T."""
    w = Parameter("w", TensorType.of("float64", (3, 2)))
    nodes = (
        Node("MatMul", ("x", "w"), ("z",)),
        Node("Pow", ("z", "three"), ("cube",)),
        Node("ReduceSum", ("cube",), ("e",), {"keepdims": 0}),
        Node("Gradient", ("x",), ("dx",), {"xs": ("x",), "y": "e"}),
        Node("Mul", ("dx", "dx"), ("square",)),
        Node("ReduceSum", ("square",), ("l",), {"keepdims": 0}),
    )
    graph = Graph((X,), (w,), {"three": np.array(3.0)}, tuple(reversed(nodes)), {"dx": "dx"}, "l")
    model, x, value = Model(graph), DRAW.normal(size=(4, 3)), DRAW.normal(size=(3, 2))

    def penalty(weights: Array) -> Array:
        return 3 * (x @ weights) ** 2 @ weights.T

    forward = model.forward({"x": x}, {"w": value}, training=True)
    np.testing.assert_allclose(forward.outputs["dx"], penalty(value), rtol=1e-12)
    found = model.backward(forward).parameters["w"]
    for place in np.ndindex(value.shape):
        sides = []
        for step in (1e-6, -1e-6):
            moved = value.copy()
            moved[place] += step
            sides.append(np.sum(penalty(moved) ** 2))
        assert found[place] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6)


def test_sigmoid_keeps_its_digits_in_both_tails() -> None:
    graph = Graph(
        (Input("x", TensorType.of("float32", (5,))),), nodes=(Node("Sigmoid", ("x",), ("y",)),), outputs={"y": "y"}
    )
    x = np.array([-200, -80, -20, 20, 200], np.float32)
    expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    found = Model(graph).forward({"x": x}, {}, training=False).outputs["y"]
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-45)


def test_the_slope_of_a_power_of_zero_is_zero_everywhere() -> None:
    nodes = (Node("Pow", ("x", "none"), ("y",)),)
    model = Model(Graph((X,), constants={"none": np.array(0.0)}, nodes=nodes, outputs={"y": "y"}))
    x = np.array([[0.0, 1.0, -2.0]])
    forward = model.forward({"x": x}, {}, training=True)
    assert forward.outputs["y"].tolist() == [[1.0, 1.0, 1.0]]
    assert model.backward(forward, {"y": np.ones((1, 3))}, ["x"]).inputs["x"].tolist() == [[0.0, 0.0, 0.0]]


def test_many_ways_to_differentiate_do_not_fill_memory() -> None:
    inputs = tuple(Input(f"x{i}", TensorType.of("float64", ())) for i in range(6))
    model = Model(Graph(inputs, nodes=(Node("Sum", tuple(i.name for i in inputs), ("y",)),), outputs={"y": "y"}))
    forward = model.forward({i.name: np.ones(()) for i in inputs}, {}, training=True)
    for bits in range(64):
        wrt = [item.name for place, item in enumerate(inputs) if bits >> place & 1]
        found = model.backward(forward, {"y": np.array(2.0)}, wrt).inputs
        assert found == dict.fromkeys(wrt, 2.0)
    assert len(forward.plan._backward) <= 16
