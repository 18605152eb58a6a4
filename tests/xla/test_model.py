"""A model on the devices of JAX computes what that of numpy does, within rounding, and refuses what that refuses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("jax")

from backwire_server.engine.errors import InvalidValue, NotTraceable
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.engine.stopping import Stop, Stopped
from backwire_server.xla import registry, tracing
from backwire_server.xla.model import XlaModel

Array = NDArray[Any]

X = Input("x", TensorType.of("float32", ("batch", 3)))
T = Input("t", TensorType.of("int64", ("batch",)))
W = Parameter("w", TensorType.of("float32", (3, 4)))
B = Parameter("b", TensorType.of("float32", (4,)))
CLASSIFIER = Graph(
    inputs=(X, T),
    parameters=(W, B),
    nodes=(
        Node("Gemm", ("x", "w", "b"), ("z",)),
        Node("Tanh", ("z",), ("h",)),
        Node("SoftmaxCrossEntropyLoss", ("h", "t"), ("l",)),
        Node("ArgMax", ("h",), ("guess",), {"axis": 1}),
    ),
    outputs={"h": "h", "guess": "guess", "x": "x", "w": "w"},
    loss="l",
)
DRAW = np.random.default_rng(0)
VALUES = {"w": DRAW.normal(size=(3, 4)).astype("f4"), "b": DRAW.normal(size=4).astype("f4")}


def batch(size: int = 5) -> dict[str, Array]:
    return {"x": DRAW.normal(size=(size, 3)).astype("f4"), "t": np.arange(size) % 4}


def assert_close(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (type(found[name]), found[name].dtype, found[name].shape) == (np.ndarray, array.dtype, array.shape)
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_passes_and_gradients_are_those_of_numpy() -> None:
    plans, inputs = PlanCache(CLASSIFIER), batch()
    models = Model(plans), XlaModel(plans)
    (expected, found) = (model.forward(inputs, VALUES, training=True) for model in models)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert_close(found.outputs, expected.outputs)
    assert 0 < found.nbytes <= expected.nbytes
    for seeds in ({}, {"h": np.ones((5, 4), "f4")}):
        gradients, others = (
            model.backward(each, seeds, ["x"]) for model, each in zip(models, (expected, found), strict=True)
        )
        assert_close(others.parameters, gradients.parameters)
        assert_close(others.inputs, gradients.inputs)


def test_gradients_are_left_where_they_are_wanted() -> None:
    model, room = XlaModel(CLASSIFIER), {"w": np.empty((3, 4), "f4")}
    kept = model.forward(batch(), VALUES, training=True)
    expected = model.backward(kept).parameters["w"]
    assert model.backward(kept, into=room).parameters["w"] is room["w"]
    np.testing.assert_array_equal(room["w"], expected)


def test_a_pass_does_not_see_parameters_that_change_later() -> None:
    model, inputs = XlaModel(CLASSIFIER), batch(64)
    values = {name: array.copy() for name, array in VALUES.items()}
    found = model.forward(inputs, values, training=True)
    before = {name: array.copy() for name, array in found.outputs.items()}
    for array in values.values():
        array += 1
    assert_close(found.outputs, before)


def test_computing_again_gives_the_same_bits() -> None:
    inputs = batch(33)

    def gradient() -> bytes:
        model = XlaModel(CLASSIFIER)
        return model.backward(model.forward(inputs, VALUES, training=True)).parameters["w"].tobytes()

    assert gradient() == gradient()


def test_shapes_may_depend_on_elements_of_inputs() -> None:
    shape = Input("shape", TensorType.of("int64", (2,)))
    graph = Graph((X, shape), nodes=(Node("Reshape", ("x", "shape"), ("y",)),), outputs={"y": "y", "shape": "shape"})
    inputs: dict[str, Array] = {"x": np.arange(12, dtype="f4").reshape(4, 3)}
    model = XlaModel(graph)
    for sizes in ([2, 6], [6, -1], [2, 6]):
        found = model.forward({**inputs, "shape": np.array(sizes)}, {}, training=False).outputs
        assert_close(found, {"y": inputs["x"].reshape(sizes), "shape": np.array(sizes)})


def test_large_constants_are_given_and_not_compiled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LITERAL_BYTES", 8)
    constants = {"c": DRAW.normal(size=(4, 3)).astype("f4"), "small": np.array(2, "f4")}
    nodes = (Node("Mul", ("x", "c"), ("y",)), Node("Mul", ("y", "small"), ("z",)))
    model, x = XlaModel(Graph((X,), (), constants, nodes, {"z": "z", "c": "c"})), np.ones((4, 3), "f4")
    found = model.forward({"x": x}, {}, training=False)
    assert len(tracing.arguments(found.plan.program)) == 2
    assert_close(found.outputs, {"z": constants["c"] * 2, "c": constants["c"]})


def test_an_operator_without_a_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._KERNELS, "Tanh")
    with pytest.raises(NotTraceable) as found:
        XlaModel(CLASSIFIER).forward(batch(), VALUES, training=True)
    assert str(found.value) == "Tanh node 'h': Tanh has no JAX kernel; use the numpy executor"


@pytest.mark.parametrize("op", ["Gather", "SoftmaxCrossEntropyLoss"])
def test_an_index_outside_is_refused_as_by_numpy_in_the_name_of_the_node_of_the_graph(op: str) -> None:
    node = Node(op, ("x", "t"), ("y",))
    graph, inputs = Graph((X, T), nodes=(node,), outputs={"y": "y"}), {**batch(), "t": np.array([0, 7, 1, 2, 9])}
    with pytest.raises(InvalidValue) as expected:
        Model(graph).forward(inputs, {}, training=False)
    with pytest.raises(InvalidValue) as found:
        XlaModel(graph).forward(inputs, {}, training=False)
    assert (str(found.value), found.value.field) == (str(expected.value), expected.value.field)
    assert str(found.value).startswith(f"{op} node 'y': ")


def test_a_computation_that_is_not_wanted_does_not_begin() -> None:
    stop, model = Stop(), XlaModel(CLASSIFIER)
    found = model.forward(batch(), VALUES, training=True, stop=stop)
    stop.wanted = True
    with pytest.raises(Stopped):
        model.forward(batch(), VALUES, training=True, stop=stop)
    with pytest.raises(Stopped):
        model.backward(found, stop=stop)
