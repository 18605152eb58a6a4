"""Graphs: what the builder writes down, what it calls things, and what it refuses."""

import numpy as np
import pytest

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import graph_pb2


def test_the_textbook_formula_is_two_operations_and_three_inputs() -> None:
    x, y, w = (bw.input(name, ()) for name in "xyw")
    proto = bw.graph(outputs={"z": (x + y) * w}).proto
    assert [(node.op, list(node.inputs), list(node.outputs)) for node in proto.nodes] == [
        ("Add", ["x", "y"], ["Add"]),
        ("Mul", ["Add", "w"], ["Mul"]),
    ]
    assert [each.name for each in proto.inputs] == ["x", "y", "w"]
    assert dict(proto.outputs) == {"z": "Mul"}
    assert proto.loss == ""
    assert not proto.constants
    assert not proto.parameters


def test_only_what_is_needed_becomes_part_of_the_graph() -> None:
    x = bw.input("x", (3,))
    _ = bw.exp(x)
    assert [node.op for node in bw.graph(outputs={"y": bw.relu(x)}).proto.nodes] == ["Relu"]


def test_a_value_used_twice_is_computed_once() -> None:
    h = bw.exp(bw.input("x", (3,)))
    assert [node.op for node in bw.graph(outputs={"y": h * h}).proto.nodes] == ["Exp", "Mul"]


def test_an_output_may_be_an_input_or_a_parameter() -> None:
    proto = bw.graph(outputs={"same": bw.input("x", (3,)), "w": bw.parameter("weight", 1.0)}).proto
    assert dict(proto.outputs) == {"same": "x", "w": "weight"}


def test_names_are_readable_deterministic_and_respect_the_users() -> None:
    def build() -> graph_pb2.Graph:
        x = bw.input("x", ("batch", 4))
        h = bw.relu(bw.relu(bw.dense(x, 3, name="hidden"))).named("Relu_1")
        return bw.graph(outputs={"y": bw.relu(h)}).proto

    proto = build()
    assert [node.outputs[0] for node in proto.nodes] == ["hidden/Gemm", "Relu", "Relu_1", "Relu_2"]
    assert [each.name for each in proto.parameters] == ["hidden/weight", "hidden/bias"]
    assert proto == build()


def test_a_named_value_and_the_one_it_came_from_are_one_node() -> None:
    h = bw.exp(bw.input("x", (3,)))
    proto = bw.graph(outputs={"y": h.named("h") + h}).proto
    assert [list(node.outputs) for node in proto.nodes] == [["h"], ["Add"]]
    assert list(proto.nodes[1].inputs) == ["h", "h"]


def test_equal_constants_become_one() -> None:
    x = bw.input("x", (3,))
    proto = bw.graph(outputs={"y": x * 2 + 2, "z": x * 3, "v": bw.input("i", (3,), "int64") * 2}).proto
    values = [tensors.decode(each.value) for each in proto.constants]
    assert [(value.dtype.name, value.item()) for value in values] == [("float32", 2), ("float32", 3), ("int64", 2)]


def test_named_constants_keep_their_names() -> None:
    x = bw.input("x", ())
    proto = bw.graph(outputs={"y": x * bw.constant(2.0).named("two") + bw.constant(2.0).named("also_two")}).proto
    assert [each.name for each in proto.constants] == ["two", "also_two"]


def test_changing_an_array_later_does_not_change_the_graph() -> None:
    array = np.ones(3, np.float32)
    y = bw.input("x", (3,)) * array
    w = bw.parameter("w", array)
    array[:] = 9
    proto = bw.graph(outputs={"y": y, "w": w}).proto
    assert tensors.decode(proto.constants[0].value).tolist() == [1, 1, 1]
    assert tensors.decode(proto.parameters[0].value).tolist() == [1, 1, 1]


def test_deep_graphs_need_no_deep_stack() -> None:
    x = bw.input("x", ())
    for _ in range(5000):
        x = x + 1
    assert len(bw.graph(outputs={"y": x}).proto.nodes) == 5000


def test_two_parameters_of_one_name_are_an_error() -> None:
    x = bw.input("x", ("batch", 4))
    y = bw.dense(bw.dense(x, 4, name="same"), 4, name="same")
    with pytest.raises(bw.GraphError, match=r"<same/weight: .* different values of the same name"):
        bw.graph(outputs={"y": y})


def test_one_parameter_may_be_used_in_several_places() -> None:
    w = bw.parameter("w", (4, 4))
    x = bw.input("x", ("batch", 4))
    proto = bw.graph(outputs={"y": x @ w @ w}).proto
    assert [each.name for each in proto.parameters] == ["w"]


def test_an_input_declared_twice_is_an_error() -> None:
    with pytest.raises(bw.GraphError, match="same name; rename"):
        bw.graph(outputs={"y": bw.input("x", ()) + bw.input("x", ())})


def test_two_names_for_one_value_are_an_error() -> None:
    h = bw.exp(bw.input("x", ()))
    with pytest.raises(bw.GraphError, match="one and the same value"):
        bw.graph(outputs={"y": h.named("a") + h.named("b")})


def test_inputs_and_parameters_are_not_renamed() -> None:
    with pytest.raises(bw.GraphError, match="rename it there"):
        bw.input("x", ()).named("y")
    with pytest.raises(bw.GraphError, match="not empty"):
        bw.exp(bw.input("x", ())).named("")


def test_a_graph_needs_something_to_compute() -> None:
    with pytest.raises(bw.GraphError, match="computes nothing"):
        bw.graph()
    with pytest.raises(bw.GraphError, match="no Value"):
        bw.graph(outputs={"y": 3})  # type: ignore[dict-item]
    with pytest.raises(bw.GraphError, match="no Value"):
        bw.graph(loss=3)  # type: ignore[arg-type]


def test_the_output_name_loss_is_reserved() -> None:
    x = bw.input("x", ())
    with pytest.raises(bw.GraphError, match="reserved"):
        bw.graph(loss=x * 2, outputs={"loss": x})
    loss = x * 2
    assert not bw.graph(loss=loss, outputs={"loss": loss}).proto.outputs


def test_a_loss_is_one_floating_point_element() -> None:
    with pytest.raises(bw.ShapeError, match=r"\[batch\].*bw.mean"):
        bw.graph(loss=bw.input("x", ("batch",)))
    with pytest.raises(bw.DTypeError, match="not floating-point"):
        bw.graph(loss=bw.input("x", (), "int64"))
    assert bw.graph(loss=bw.input("x", (1, 1))).proto.loss == "x"


def test_attributes_keep_their_kinds() -> None:
    x = bw.input("x", (3,))
    (y,) = bw.op(
        "Anything",
        x,
        None,
        2.0,
        attributes={
            "i": 3,
            "f": 0.5,
            "s": "text",
            "ints": [1, 2],
            "floats": [1.0, 2.5],
            "texts": ["a"],
            "empty": [],
            "t": np.ones(2, np.float32),
        },
        dtype="int64",
        shape=(7, None),
    )
    assert (y.dtype.name, y.shape) == ("int64", (7, None))
    (node,) = bw.graph(outputs={"y": y}).proto.nodes
    assert list(node.inputs) == ["x", "", "Constant"]
    kinds = {name: value.WhichOneof("kind") for name, value in node.attributes.items()}
    assert kinds == {
        "i": "integer",
        "f": "number",
        "s": "text",
        "ints": "integers",
        "floats": "numbers",
        "texts": "texts",
        "empty": "integers",
        "t": "tensor",
    }


def test_an_op_may_have_several_outputs() -> None:
    values, indices = bw.op("TopK", bw.input("x", (3,)), [2], outputs=2)
    (node,) = bw.graph(outputs={"i": indices, "v": values}).proto.nodes
    assert list(node.outputs) == ["TopK.0", "TopK.1"]


def test_str_lists_what_is_in_the_graph() -> None:
    x = bw.input("x", ("batch", 4))
    y = bw.dense(x, 2, name="out") * 3
    text = str(bw.graph(loss=bw.mean(y), outputs={"y": y}))
    assert text.splitlines() == [
        "input     x: float32[batch, 4]",
        "parameter out/weight: float32[4, 2]",
        "parameter out/bias: float32[2]",
        "constant  Constant: float32[] = 3.0",
        "out/Gemm = Gemm(x, out/weight, out/bias)",
        "Mul = Mul(out/Gemm, Constant)",
        "ReduceMean = ReduceMean(Mul)",
        "output    y = Mul",
        "loss      ReduceMean",
    ]
