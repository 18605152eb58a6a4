"""ONNX models through the service: loaded, trained, and compared with onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.e2e.onnx_models import changed_since, convolutional, draw, model, perceptron, run, sequence

import backwire as bw
import backwire.onnx


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 17, 18, 20, 21, 23])
@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_a_loaded_model_computes_what_onnxruntime_does(client: bw.Client, make: Any, opset: int) -> None:
    made = make(opset)
    x = draw(5, *(dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim[1:]))
    session = client.create_session(backwire.onnx.load(made))
    np.testing.assert_allclose(session.forward({"x": x}, "eval").outputs["y"], run(made, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [7, 9, onnx.defs.onnx_opset_version()])
def test_the_oldest_and_the_newest_operator_sets_are_loaded(client: bw.Client, opset: int) -> None:
    session, x = client.create_session(backwire.onnx.load(perceptron(opset))), draw(5, 6)
    np.testing.assert_allclose(session.forward({"x": x}, "eval").outputs["y"], run(perceptron(), x), rtol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_floating_types_come_and_go_unchanged(client: bw.Client, kind: str, tmp_path: Path) -> None:
    value = draw(3).astype(kind)
    number = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float64": TensorProto.DOUBLE}[kind]
    made = model([helper.make_node("Mul", ["x", "w"], ["y"])], [3], 21)
    made.graph.initializer.add(name="w", data_type=number, dims=[3], raw_data=value.tobytes())
    for typed in (made.graph.input[0], made.graph.output[0]):
        typed.CopyFrom(helper.make_tensor_value_info(typed.name, number, [3]))
    session = client.create_session(backwire.onnx.load(made, frozen="w"))
    assert session.parameters()["w"].dtype == value.dtype
    backwire.onnx.save(session, tmp_path / "typed.onnx")
    (written,) = onnx.load(tmp_path / "typed.onnx").graph.initializer
    assert (written.data_type, written.raw_data) == (number, value.tobytes())


@pytest.mark.parametrize("opset", [11, 12])
def test_operators_of_an_old_set_keep_their_meaning(client: bw.Client, opset: int) -> None:
    made, x = changed_since(opset), draw(2, 4, 3)
    session = client.create_session(backwire.onnx.load(made))
    np.testing.assert_allclose(session.forward({"x": x}, "eval").outputs["y"], run(made, x), rtol=1e-5)


@pytest.mark.parametrize("opset", [11, 13, 24])
def test_look_ups_in_a_split_fold_away(client: bw.Client, opset: int) -> None:
    made, x = sequence(opset), draw(3, 5)
    graph = backwire.onnx.load(made)
    assert {node.op for node in graph.proto.nodes} <= {"Split", "Identity", "Mul", "Squeeze"}
    y = client.create_session(graph).forward({"x": x}, "eval").outputs["y"]
    np.testing.assert_allclose(y, x[:, 2] * x[:, 4] * draw(3), rtol=1e-6)


def test_outputs_can_be_differentiated_and_frozen_parameters_stay(client: bw.Client) -> None:
    session = client.create_session(backwire.onnx.load(perceptron(), frozen="*1"), optimizer=bw.SGD(0.1))
    x = draw(4, 6)
    forward = session.forward({"x": x})
    seed = np.ones((4, 3), np.float32)
    gradient = forward.backward({"y": seed}, wrt=["x"])["x"]
    hidden = x @ draw(8, 6).T + draw(8)
    np.testing.assert_allclose(gradient, (seed @ draw(8, 3).T * (hidden > 0)) @ draw(8, 6), rtol=1e-5, atol=1e-6)
    assert session.gradients().keys() == {"w2", "b2"}
    session.step()
    parameters = session.parameters()
    np.testing.assert_array_equal(parameters["w1"], draw(8, 6))
    np.testing.assert_allclose(parameters["b2"], draw(3) - 0.4, rtol=1e-5)


def test_functions_of_the_model_are_inlined(client: bw.Client) -> None:
    body = [helper.make_node("Mul", ["a", "b"], ["ab"]), helper.make_node("Tanh", ["ab"], ["c"])]
    function = helper.make_function("local", "Squash", ["a", "b"], ["c"], body, [helper.make_opsetid("", 18)])
    nodes = [helper.make_node("Mul", ["x", "w"], ["s"]), helper.make_node("Neg", ["s"], ["y"])]
    made = model(nodes, ["batch", 3], 18, w=draw(3))
    made.graph.node[0].CopyFrom(helper.make_node("Squash", ["x", "w"], ["s"], domain="local"))
    made.opset_import.append(helper.make_opsetid("local", 1))
    made.functions.append(function)
    y = client.create_session(backwire.onnx.load(made)).forward({"x": draw(2, 3)}, "eval").outputs["y"]
    np.testing.assert_allclose(y, -np.tanh(draw(2, 3) * draw(3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "taken", "attributes"),
    [
        *(("Split", taken, {"axis": 1, "num_outputs": 3}) for taken in "abc"),
        *(("TopK", taken, {"axis": 1}) for taken in "ab"),
        *(("Unique", taken, {}) for taken in "abcd"),
        *(("LayerNormalization", taken, {}) for taken in "a"),
    ],
)
def test_outputs_that_no_one_takes_are_left_out_where_the_operator_allows(
    client: bw.Client, op: str, taken: str, attributes: dict[str, Any], tmp_path: Path
) -> None:
    second = {"TopK": "k", "LayerNormalization": "w"}.get(op, "")
    counts = {"Split": 3, "TopK": 2, "Unique": 4, "LayerNormalization": 3}
    nodes = [
        helper.make_node(op, ["x", second] if second else ["x"], list("abcd"[: counts[op]]), **attributes),
        helper.make_node("Cast", [taken], ["y"], to=TensorProto.FLOAT),
    ]
    made = model(nodes, [2, 6], opset=18, w=draw(6), k=np.array([2]))
    session = client.create_session(backwire.onnx.load(made))
    backwire.onnx.save(session, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", draw(2, 6)), run(made, draw(2, 6)), rtol=1e-6)
    (node,) = (node for node in onnx.load(tmp_path / "model.onnx").graph.node if node.op_type == op)
    kept = {"Split": 3, "TopK": 2, "Unique": "abcd".index(taken) + 1, "LayerNormalization": 1}
    assert len(node.output) == kept[op]


def test_the_server_names_an_operator_that_it_does_not_have(client: bw.Client) -> None:
    (y,) = bw.op("MatMulInteger", bw.input("x", (2, 2), dtype="int8"), np.ones((2, 2), np.int8), dtype="int32")
    with pytest.raises(bw.GraphError, match="MatMulInteger"):
        client.create_session(bw.graph(outputs={"y": y}))
