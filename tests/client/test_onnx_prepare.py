"""What models of early operator sets and gradients within a model become, before any server sees them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import backwire as bw
import backwire.onnx

TRAINING = "ai.onnx.preview.training"


def model(*nodes: onnx.NodeProto, rank: int = 3, opset: int = 6, **initializers: list[float]) -> onnx.ModelProto:
    """Returns a model of x, of shape (2, 3, ...), that computes y, of the type of x."""
    (x, y) = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3, 4, 5)[:rank]) for name in "xy")
    tensors = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, "test", [x], [y], tensors)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid(TRAINING, 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def operators(graph: bw.Graph) -> list[str]:
    return [node.op for node in graph.proto.nodes]


@pytest.mark.parametrize(("rank", "axes"), [(2, None), (3, [1]), (4, [1, 2])])
def test_slopes_of_an_early_prelu_are_per_channel(rank: int, axes: list[int] | None) -> None:
    made = model(helper.make_node("PRelu", ["x", "slope"], ["y"]), rank=rank, slope=[0.1, 0.2, 0.3])
    graph = backwire.onnx.load(made)
    assert [(item.name, list(item.value.shape)) for item in graph.proto.parameters] == [("slope", [3])]
    if axes is None:
        assert operators(graph) == ["PRelu"]
    else:
        assert operators(graph) == ["Unsqueeze", "PRelu"]
        (constant,) = graph.proto.constants
        assert np.frombuffer(constant.value.data, np.int64).tolist() == axes
        assert graph.value("y").shape == (2, 3, 4, 5)[:rank]


@pytest.mark.parametrize(("opset", "slope"), [(6, [0.1]), (7, [0.1, 0.2, 0.3, 0.4])])
def test_one_slope_and_those_that_broadcast_stay_as_they_are(opset: int, slope: list[float]) -> None:
    made = model(helper.make_node("PRelu", ["x", "slope"], ["y"]), opset=opset, slope=slope)
    assert operators(backwire.onnx.load(made)) == ["PRelu"]


def test_a_slope_per_channel_needs_the_rank_of_what_it_applies_to() -> None:
    made = model(
        helper.make_node("Reshape", ["x", "sizes"], ["h"]),
        helper.make_node("PRelu", ["h", "slope"], ["y"]),
        slope=[1, 2],
    )
    made.graph.input.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, ["rank"]))
    with pytest.raises(bw.GraphError, match="PRelu 'y': its slope is per channel, but the rank"):
        backwire.onnx.load(made)


def test_a_model_of_the_first_operator_sets_loads_when_its_operators_never_changed() -> None:
    node = helper.make_node("Not", ["x"], ["y"])
    (x, y) = (helper.make_tensor_value_info(name, TensorProto.BOOL, [2]) for name in "xy")
    made = helper.make_model(helper.make_graph([node], "test", [x], [y]), opset_imports=[helper.make_opsetid("", 1)])
    assert operators(backwire.onnx.load(made)) == ["Not"]


def gradient(inputs: list[str], xs: list[str], zs: list[str] | None = None, y: str = "h") -> onnx.NodeProto:
    return helper.make_node("Gradient", inputs, ["y"], domain=TRAINING, y=y, xs=xs, zs=zs)


def test_a_gradient_node_differentiates_within_the_graph() -> None:
    made = model(helper.make_node("Mul", ["x", "w"], ["h"]), gradient(["x", "w"], xs=["x"], zs=["w"]), opset=12, w=[3])
    graph = backwire.onnx.load(made)
    (slope,) = (node for node in graph.proto.nodes if node.op == "Gradient")
    assert list(slope.inputs) == list(slope.attributes["xs"].texts.items) == ["x"]
    assert slope.attributes["y"].text == "h"
    assert (graph.value("y").shape, graph.value("y").dtype.name) == ((2, 3, 4), "float32")


@pytest.mark.parametrize(
    "node", [gradient(["w"], xs=["x"]), gradient(["x"], xs=["x"], zs=["w"]), gradient(["x"], y="later", xs=["x"])]
)
def test_a_gradient_at_other_values_than_it_names_is_refused(node: onnx.NodeProto) -> None:
    made = model(helper.make_node("Mul", ["x", "w"], ["h"]), node, opset=12, w=[3])
    with pytest.raises(bw.GraphError, match=r"Gradient node 'y' must come after its y.* not supported"):
        backwire.onnx.load(made)


def test_every_operator_that_is_out_of_scope_is_listed_with_its_reason() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("OptionalHasElement", ["d"], ["has"]),
        helper.make_node("Binarizer", ["d"], ["y"], domain="ai.onnx.ml"),
    ]
    made = model(*nodes, opset=21)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with pytest.raises(bw.GraphError) as caught:
        backwire.onnx.load(made)
    assert str(caught.value).splitlines() == [
        "4 parts of the model are not supported; export the model without:",
        "  node 0, DynamicQuantizeLinear 'q': it is quantised",
        "  node 1, DequantizeLinear 'd': it is quantised",
        "  node 2, OptionalHasElement 'has': it is about optionals",
        "  node 3, Binarizer 'y': it is of the domain 'ai.onnx.ml', not of the ONNX operator set",
    ]


def test_a_model_of_another_domain_alone_is_refused_for_that() -> None:
    made = model(helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml"))
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with pytest.raises(bw.GraphError, match=r"of the domain 'ai\.onnx\.ml'"):
        backwire.onnx.load(made)
