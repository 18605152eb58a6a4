"""What sizes decide when a model is loaded: which branch of an If is taken, and where a split cuts."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import backwire as bw
import backwire.onnx

THEN, ELSE = "Exp", "Neg"


def branch(*nodes: onnx.NodeProto, output: str = "inner", **initializers: Sequence[float]) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in initializers.items()]
    return helper.make_graph(nodes, "branch", [], [helper.make_empty_tensor_value_info(output)], tensors)


def choice(condition: str, output: str = "y", then: onnx.GraphProto | None = None) -> onnx.NodeProto:
    """Returns an If that computes THEN or ELSE of x; both branches call their value `inner`."""
    ours, theirs = (branch(helper.make_node(op, ["x"], ["inner"])) for op in (THEN, ELSE))
    return helper.make_node("If", [condition], [output], then_branch=then or ours, else_branch=theirs)


def loaded(*nodes: onnx.NodeProto, shape: Sequence[int | str] = ("n", 3), opset: int = 18) -> bw.Graph:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    others = [
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    tensors = [numpy_helper.from_array(np.array(value), name) for name, value in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "test", [x, others[0]], [others[1]], tensors)
    return backwire.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


CONSTANTS = {"zero": 0, "one": 1, "two": 2, "three": 3, "ones": [1], "yes": True, "no": False}

CONDITIONS = {
    "a constant": ([], "yes", True),
    "another constant": ([], "no", False),
    "the rank": (
        [("Shape", ["x"], "s"), ("Size", ["s"], "rank"), ("Equal", ["rank", "two"], "c")],
        "c",
        True,
    ),
    "one size, though others are open": (
        [("Shape", ["x"], "s"), ("Gather", ["s", "one"], "size"), ("Equal", ["size", "one"], "c")],
        "c",
        False,
    ),
    "a calculation with sizes": (
        [
            *(("Shape", ["x"], "s"), ("Gather", ["s", "ones"], "sizes"), ("Squeeze", ["sizes"], "size")),
            *(("Sub", ["size", "two"], "less"), ("Greater", ["less", "zero"], "more"), ("Not", ["more"], "c")),
        ],
        "c",
        False,
    ),
}


@pytest.mark.parametrize("what", CONDITIONS)
@pytest.mark.parametrize("opset", [11, 18, 21])
def test_the_branch_of_a_known_condition_is_taken(what: str, opset: int) -> None:
    calculation, condition, taken = CONDITIONS[what]
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in calculation]
    graph = loaded(*nodes, choice(condition), opset=opset)
    assert [node.op for node in graph.proto.nodes if node.op != "Identity"] == [THEN if taken else ELSE]
    assert graph.value("y").shape == ("n", 3)


def test_values_of_one_name_in_several_branches_stay_apart() -> None:
    graph = loaded(choice("yes", "a"), choice("no", "b"), helper.make_node("Add", ["a", "b"], ["y"]))
    add = next(node for node in graph.proto.nodes if node.op == "Add")
    assert sorted(node.op for node in graph.proto.nodes if node.op != "Identity") == ["Add", THEN, ELSE]
    assert len(set(add.inputs)) == 2


def test_a_branch_within_a_branch_is_taken_and_brings_its_constants() -> None:
    scaled = helper.make_node("Mul", ["x", "by"], ["scaled"])
    inner = choice("yes", "inner", branch(scaled, output="scaled", by=[2.0]))
    graph = loaded(choice("yes", then=branch(inner)))
    assert [node.op for node in graph.proto.nodes if node.op != "Identity"] == ["Mul"]
    (constant,) = graph.proto.constants
    assert np.frombuffer(constant.value.data, np.float32).tolist() == [2.0]


def test_a_branch_may_be_a_value_of_the_graph_around_it() -> None:
    graph = loaded(helper.make_node("Tanh", ["x"], ["h"]), choice("yes", then=branch(output="h")))
    assert [node.op for node in graph.proto.nodes if node.op != "Identity"] == ["Tanh"]


def test_what_a_taken_branch_tells_decides_the_next() -> None:
    """The rank after the first If is known only once its branch is."""
    first = helper.make_node(
        "If",
        ["yes"],
        ["h"],
        then_branch=branch(helper.make_node("ReduceSum", ["x"], ["inner"], keepdims=0)),
        else_branch=branch(helper.make_node("Identity", ["x"], ["inner"])),
    )
    asked = [("Shape", ["h"], "s"), ("Size", ["s"], "rank"), ("Equal", ["rank", "zero"], "c")]
    graph = loaded(first, *(helper.make_node(op, inputs, [output]) for op, inputs, output in asked), choice("c"))
    assert [node.op for node in graph.proto.nodes if node.op != "Identity"] == [THEN]


def test_a_split_into_a_sequence_cuts_where_a_calculation_with_sizes_says() -> None:
    """As PyTorch's exporter writes `chunk`: the size of a part is that of the axis, less one, divided by the parts."""
    nodes = [
        *(("Shape", ["x"], "s"), ("Gather", ["s", "one"], "size"), ("Add", ["size", "one"], "more")),
        *(("Div", ["more", "two"], "part"), ("SplitToSequence", ["x", "part"], "parts")),
        ("SequenceAt", ["parts", "one"], "y"),
    ]
    made = [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes]
    made[4].attribute.append(helper.make_attribute("axis", 1))
    graph = loaded(*made)
    assert [node.op for node in graph.proto.nodes] == ["Split", "Identity"]
    assert graph.value("y").shape == ("n", 1)


def test_without_a_decision_the_calculation_stays_for_the_server() -> None:
    nodes = [("Shape", ["x"], "s"), ("Size", ["s"], "rank"), ("Cast", ["rank"], "y")]
    made = [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes]
    made[2].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    assert [node.op for node in loaded(*made).proto.nodes] == ["Shape", "Size", "Cast"]


@pytest.mark.parametrize(
    ("op", "inputs"), [("Gather", ["s", "three"]), ("Div", ["one", "zero"]), ("Reshape", ["one", "three"])]
)
def test_a_calculation_that_cannot_be_is_left_for_others_to_tell(op: str, inputs: list[str]) -> None:
    shape = helper.make_node("Shape", ["x"], ["s"])
    asked = [helper.make_node(op, inputs, ["size"]), helper.make_node("Equal", ["size", "one"], ["c"])]
    with pytest.raises(bw.GraphError, match=r"If 'y': .*control flow|shapes of the model do not fit"):
        loaded(shape, *asked, choice("c"))


@pytest.mark.parametrize("condition", ["flag", "c"])
def test_a_condition_that_differs_from_pass_to_pass_is_control_flow(condition: str) -> None:
    asked = [("Shape", ["x"], "s"), ("Gather", ["s", "zero"], "size"), ("Equal", ["size", "one"], "c")]
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in asked]
    with pytest.raises(bw.GraphError, match=r"If 'y': .*'then_branch' is a graph: control flow"):
        loaded(*nodes, choice(condition))
