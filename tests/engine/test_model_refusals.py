"""What a model refuses: wrong inputs, gradients that do not flow, and nodes that do not fit."""

import numpy as np
import pytest
from tests.engine.test_model import CLASSIFIER, VALUES, T, W, X, batch

from backwire_server.engine.errors import (
    CyclicGraph,
    DtypeMismatch,
    EngineError,
    GraphError,
    InvalidAttribute,
    InvalidValue,
    NotDifferentiable,
    ShapeMismatch,
    UnknownInput,
    UnknownOp,
    UnknownOutput,
)
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": np.zeros((2, 4))}, ShapeMismatch, r"\[batch, 3\].*\[2, 4\]"),
        ({"x": np.zeros(3)}, ShapeMismatch, "rank 2"),
        ({"x": np.zeros((2, 3), "f4")}, DtypeMismatch, "float64.*float32"),
        ({"x": np.zeros((2, 3)), "t": np.zeros(3, "i8")}, ShapeMismatch, "batch is 2 in input 'x' and 3 in input 't'"),
        ({"y": np.zeros(3)}, UnknownInput, "no input 'y'; its inputs are: x, t"),
        (
            {"x": np.zeros((2, 3)), "t": np.array([0, 9])},
            InvalidValue,
            "^SoftmaxCrossEntropyLoss node 'l': label 9 is no class of 0 to 3",
        ),
    ],
)
def test_wrong_inputs_are_named(inputs: dict, error: type[EngineError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Model(CLASSIFIER).forward(inputs, VALUES, training=True)
    assert caught.value.field


def test_wrong_backward_arguments_are_named() -> None:
    model = Model(CLASSIFIER)
    forward = model.forward(batch(), VALUES, training=True)
    with pytest.raises(UnknownOutput, match="no output 'q'"):
        model.backward(forward, {"q": np.zeros(1)})
    with pytest.raises(ShapeMismatch, match=r"\[2\].*float64\[5, 4\]"):
        model.backward(forward, {"h": np.zeros(2)})
    with pytest.raises(DtypeMismatch, match="float32"):
        model.backward(forward, {"h": np.zeros((5, 4), "f4")})
    with pytest.raises(NotDifferentiable, match="int64"):
        model.backward(forward, {"guess": np.zeros((5, 1), "i8")})
    with pytest.raises(NotDifferentiable, match="'t' is int64"):
        model.backward(forward, wrt=["t"])
    with pytest.raises(UnknownInput, match="'q'"):
        model.backward(forward, wrt=["q"])


@pytest.mark.parametrize(
    ("node", "error", "message"),
    [
        (Node("Gemn", ("x", "w"), ("y",)), UnknownOp, "Gemn node 'y'.*did you mean Gemm"),
        (
            Node("MatMul", ("w", "w"), ("y",), name="twice"),
            ShapeMismatch,
            r"MatMul node 'twice' on .*\[3, 4\].*4 and 3",
        ),
        (Node("Gemm", ("x",), ("y",)), GraphError, "first 2 required"),
        (Node("Gemm", ("x", "w"), ("y",), {"transC": 1}), InvalidAttribute, "no attribute 'transC'.*alpha"),
        (Node("Gemm", ("x", "w"), ("y",), {"alpha": "a"}), InvalidAttribute, "must be of kind float"),
        (Node("Concat", ("x", "x"), ("y",)), InvalidAttribute, "needs the attribute 'axis'"),
        (Node("Softmax", ("x",), ("y",), {"axis": 2}), InvalidAttribute, "axis 2 is out of range for rank 2"),
        (Node("Relu", ("x",), ("y", "z")), GraphError, "at most 1 outputs"),
        (Node("Add", ("x", "t"), ("y",)), DtypeMismatch, "float64 and int64"),
        (Node("Convolution", ("x", "w"), ("y",)), UnknownOp, "internal"),
    ],
)
def test_a_node_that_does_not_fit_is_refused_when_the_model_is_made(
    node: Node, error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Model(Graph(inputs=(X, T), parameters=(W,), nodes=(node,), outputs={"y": "y"}))
    assert caught.value.field


@pytest.mark.parametrize(("value", "type_"), [("x", r"float64\[2, 3\]"), ("t", r"int64\[batch\]")])
def test_a_loss_must_be_one_floating_point_element(value: str, type_: str) -> None:
    graph = Graph(inputs=(Input("x", TensorType.of("float64", (2, 3))), T), loss=value)
    with pytest.raises(GraphError, match=f"{type_}; it must be one floating-point element"):
        Model(graph)


def test_no_gradient_flows_through_integers() -> None:
    def graph(frozen: bool) -> Graph:
        nodes = (Node("ArgMax", ("w",), ("i",)), Node("Cast", ("i",), ("f",), {"to": "float64"}))
        total = Node("ReduceSum", ("f",), ("l",), {"keepdims": 0})
        return Graph(parameters=(Parameter("w", W.type, frozen=frozen),), nodes=(*nodes, total), loss="l")

    assert Model(graph(frozen=True)).forward({}, {"w": VALUES["w"]}, training=True).loss is not None
    model = Model(graph(frozen=False))  # an integer in between: no gradient flows, and none is needed
    assert model.backward(model.forward({}, {"w": VALUES["w"]}, training=True)).parameters == {}


def test_a_gradient_node_names_what_it_lacks() -> None:
    node = Node("Gradient", ("x",), ("dx",), {"xs": ("w",), "y": "x"})
    with pytest.raises(GraphError, match="no input 'w', but xs names it"):
        Model(Graph(inputs=(X,), nodes=(node,), outputs={"dx": "dx"}))
    with pytest.raises(CyclicGraph):
        Graph(inputs=(X,), nodes=(Node("Gradient", ("x",), ("dx",), {"xs": ("x",), "y": "dx"}),))
