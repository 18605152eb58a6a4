"""ONNX models through the service: loaded, trained, written back, and run by onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
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


@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_a_trained_model_comes_back_as_onnx(client: bw.Client, make: Any, tmp_path: Path) -> None:
    graph = backwire.onnx.load(make())
    x = draw(16, *(dim for dim in graph.value("x").shape or () if isinstance(dim, int)))
    targets = np.arange(16) % 3
    y = graph.value("y")
    labels = bw.input("labels", ("examples",), dtype="int64")
    trained = bw.graph(loss=bw.softmax_cross_entropy(y, labels), outputs={"y": y})
    session = client.create_session(trained, optimizer=bw.Adam(0.03))
    losses = [session.train_step({"x": x, "labels": targets}).loss for _ in range(40)]
    assert losses[-1] < losses[0] / 2

    backwire.onnx.save(session, tmp_path / "trained.onnx")
    written = onnx.load(tmp_path / "trained.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert [each.name for each in written.graph.input] == ["x"], "the labels are for the loss alone"
    found = {each.name: numpy_helper.to_array(each) for each in written.graph.initializer}
    expected = session.parameters()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    eval_y = session.forward({"x": x}, "eval", outputs=["y"]).outputs["y"]
    np.testing.assert_allclose(run(tmp_path / "trained.onnx", x), eval_y, rtol=1e-5, atol=1e-6)

    again = backwire.onnx.load(tmp_path / "trained.onnx")
    assert {item.name for item in again.proto.parameters} == {item.name for item in graph.proto.parameters}
    np.testing.assert_array_equal(client.create_session(again).forward({"x": x}, "eval").outputs["y"], eval_y)


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


def test_a_graph_from_the_builder_becomes_a_model(client: bw.Client, tmp_path: Path) -> None:
    x = bw.input("x", ("batch", 4))
    hidden = bw.dropout(bw.gelu(bw.dense(x, 8, name="hidden")), 0.5)
    y = bw.dense(hidden, 2, name="last")
    loss = bw.mean((y - bw.input("target", ("batch", 2))) ** 2)
    session = client.create_session(bw.graph(loss=loss, outputs={"y": y, "h": hidden * 2.0}), seed=3)
    backwire.onnx.save(session, tmp_path / "built.onnx")
    data = draw(5, 4)
    onnx.checker.check_model(onnx.load(tmp_path / "built.onnx"), full_check=True)
    outputs = session.forward({"x": data}, "eval", outputs=["y", "h"]).outputs
    np.testing.assert_allclose(run(tmp_path / "built.onnx", data), outputs["y"], rtol=1e-5, atol=1e-6)


def test_what_is_in_training_mode_trains_here_and_is_written_for_inference(client: bw.Client, tmp_path: Path) -> None:
    statistics = {"scale": draw(3), "bias": draw(3), "mean": draw(3), "var": np.full(3, 2, np.float32)}
    norm = helper.make_node("BatchNormalization", ["x", *statistics], ["n", "m", "v"], training_mode=1, momentum=0.5)
    drop = helper.make_node("Dropout", ["n", "ratio", "on"], ["y"])
    made = model([norm, drop], ["batch", 3], 15, **statistics, ratio=np.array(0.5, np.float32), on=np.array(True))
    graph = backwire.onnx.load(made)
    frozen = {item.name: item.frozen for item in graph.proto.parameters}
    assert frozen == {"scale": False, "bias": False, "mean": True, "var": True}
    session, x = client.create_session(graph), draw(64, 3)
    assert np.count_nonzero(session.forward({"x": x}).outputs["y"] == 0) > 20
    mean = session.parameters(["mean"])["mean"]
    np.testing.assert_allclose(mean, (statistics["mean"] + x.mean(0)) / 2, rtol=1e-5, atol=1e-6)
    backwire.onnx.save(session, tmp_path / "model.onnx")
    eval_y = session.forward({"x": x}, "eval").outputs["y"]
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x), eval_y, rtol=1e-5, atol=1e-6)


def test_averaged_parameters_can_be_written(client: bw.Client, tmp_path: Path) -> None:
    graph = backwire.onnx.load(perceptron())
    loss = bw.mean(graph.value("y") ** 2)
    trained = bw.graph(loss=loss, outputs={"y": graph.value("y")})
    session = client.create_session(trained, optimizer=bw.SGD(0.1, average_decay=0.5))
    for _ in range(3):
        session.train_step({"x": draw(4, 6)})
    backwire.onnx.save(session, tmp_path / "average.onnx", averaged=True)
    found = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "average.onnx").graph.initializer}
    now = session.parameters()
    for name, value in session.parameters(averaged=True).items():
        np.testing.assert_array_equal(found[name], value)
        assert not np.array_equal(found[name], now[name])


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


def test_an_output_under_another_name_than_its_value_keeps_it(client: bw.Client, tmp_path: Path) -> None:
    x = bw.input("x", (2, 2))
    inner = bw.tanh(x * bw.parameter("w", (2, 2))).named("inner")
    session = client.create_session(bw.graph(outputs={"y": inner, "again": inner}))
    backwire.onnx.save(session, tmp_path / "named.onnx")
    assert {each.name for each in onnx.load(tmp_path / "named.onnx").graph.output} == {"y", "again"}
    y = session.forward({"x": draw(2, 2)}, "eval").outputs["y"]
    np.testing.assert_allclose(run(tmp_path / "named.onnx", draw(2, 2)), y, rtol=1e-5)
    clash = client.create_session(bw.graph(outputs={"inner": bw.exp(inner)}))
    with pytest.raises(bw.GraphError, match="'inner' has the name of another value"):
        backwire.onnx.save(clash, tmp_path / "clash.onnx")


def test_what_onnx_cannot_say_is_refused_and_nothing_is_written(client: bw.Client, tmp_path: Path) -> None:
    x = bw.input("x", (2,))
    (slope,) = bw.gradient(bw.sum(x**3), [x])
    session = client.create_session(bw.graph(outputs={"slope": slope}))
    with pytest.raises(bw.GraphError, match="computed from a gradient"):
        backwire.onnx.save(session, tmp_path / "slope.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_session_found_by_its_id_is_saved_with_its_graph(client: bw.Client, tmp_path: Path) -> None:
    graph = backwire.onnx.load(perceptron())
    attached = client.session(client.create_session(graph).id)
    with pytest.raises(bw.InvalidRequestError, match="pass graph="):
        backwire.onnx.save(attached, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    backwire.onnx.save(attached, tmp_path / "model.onnx", graph=graph)
    x = draw(2, 6)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x), run(perceptron(), x), rtol=1e-5, atol=1e-6)


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


def test_large_parameters_go_beside_the_model(
    client: bw.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backwire.onnx._save.MESSAGE_BYTES", 16)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = model(nodes, ["batch", 40], w=draw(40, 50))
    session = client.create_session(backwire.onnx.load(made))
    for _ in range(2):
        backwire.onnx.save(session, tmp_path / "large.onnx")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert (tmp_path / "large.onnx.data").stat().st_size == 40 * 50 * 4
    (parameter,) = backwire.onnx.load(tmp_path / "large.onnx").proto.parameters
    assert parameter.value.data == draw(40, 50).tobytes()


def test_the_server_names_an_operator_that_it_does_not_have(client: bw.Client) -> None:
    (y,) = bw.op("MatMulInteger", bw.input("x", (2, 2), dtype="int8"), np.ones((2, 2), np.int8), dtype="int32")
    with pytest.raises(bw.GraphError, match="MatMulInteger"):
        client.create_session(bw.graph(outputs={"y": y}))


def test_an_operator_of_another_domain_comes_back_in_it(client: bw.Client, tmp_path: Path) -> None:
    node = helper.make_node("FlexAttention", ["x", "k", "k"], ["y"], domain="ai.onnx.preview")
    made = model([node], [1, 2, 3, 4], opset=26, k=draw(1, 2, 5, 4))
    session = client.create_session(backwire.onnx.load(made))
    backwire.onnx.save(session, tmp_path / "flex.onnx")
    again = client.create_session(backwire.onnx.load(tmp_path / "flex.onnx"))
    y, same = (each.forward({"x": draw(1, 2, 3, 4)}, "eval").outputs["y"] for each in (session, again))
    np.testing.assert_array_equal(y, same)
    assert {item.domain for item in onnx.load(tmp_path / "flex.onnx").opset_import} == {"", "ai.onnx.preview"}
