"""Sessions and graphs written as ONNX models, and run by onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.e2e.onnx_models import convolutional, draw, model, perceptron, run

import backwire as bw
import backwire.onnx


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


def test_an_operator_of_another_domain_comes_back_in_it(client: bw.Client, tmp_path: Path) -> None:
    node = helper.make_node("FlexAttention", ["x", "k", "k"], ["y"], domain="ai.onnx.preview")
    made = model([node], [1, 2, 3, 4], opset=26, k=draw(1, 2, 5, 4))
    session = client.create_session(backwire.onnx.load(made))
    backwire.onnx.save(session, tmp_path / "flex.onnx")
    again = client.create_session(backwire.onnx.load(tmp_path / "flex.onnx"))
    y, same = (each.forward({"x": draw(1, 2, 3, 4)}, "eval").outputs["y"] for each in (session, again))
    np.testing.assert_array_equal(y, same)
    assert {item.domain for item in onnx.load(tmp_path / "flex.onnx").opset_import} == {"", "ai.onnx.preview"}
