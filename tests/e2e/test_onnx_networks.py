"""Published image networks through the service, with weights drawn anew: as onnxruntime has them, and they learn."""

from collections.abc import Sequence
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.loader as onnx_tests
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import backwire as bw
import backwire.onnx

ort = pytest.importorskip("onnxruntime")
Array = NDArray[Any]

FOLDER = Path(onnx_tests.DATA_DIR) / "light"
NAMES = ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet")
BATCH_NORMALIZATION = ("scale", "bias", "mean", "variance")
PART = 1e-3  # how much of the loss a step is to take away


def network(name: str) -> onnx.ModelProto:
    """Returns a network of ONNX's test data with weights in place of the constants that it ships with.

    Its Dropout drops nothing, so that two passes in train mode are the same.
    """
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph, roles = model.graph, roles_of(model.graph)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    used = {name for node in nodes for name in node.input}
    shapes = {node.output[0]: given[node.input[0]].tolist() for node in graph.node if node not in nodes}
    shapes |= {name: given[name].shape for name in roles if name in given}
    random = np.random.default_rng(5)
    values = {name: array for name, array in given.items() if name in used}
    values |= {name: weight(roles.get(name, ""), shape, random) for name, shape in sorted(shapes.items())}
    inputs = [info for info in graph.input if info.name not in given]
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Dropout" and attribute.name == "ratio":
                attribute.f = 0.0
    tensors = [numpy_helper.from_array(array, name) for name, array in values.items()]
    made = helper.make_graph(nodes, name, inputs, graph.output, tensors)
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=7)


def roles_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Returns what the floating-point initializers that batch normalisation takes are to it."""
    nodes = (node for node in graph.node if node.op_type == "BatchNormalization")
    return {name: role for node in nodes for role, name in zip(BATCH_NORMALIZATION, node.input[1:], strict=True)}


def weight(role: str, shape: Sequence[int], random: np.random.Generator) -> Array:
    """Draws a weight so that activations keep their size from layer to layer."""
    if role in ("scale", "variance"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    fan_in = prod(shape[1:]) if len(shape) > 1 else 100
    return (random.normal(size=shape) * sqrt(2 / fan_in)).astype(np.float32)


def image(graph: onnx.GraphProto) -> dict[str, Array]:
    (info,) = graph.input
    shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    return {info.name: np.random.default_rng(6).normal(size=shape).astype(np.float32)}


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    (found,) = ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    return np.asarray(found)


def with_loss(model: onnx.ModelProto) -> bw.Graph:
    """Returns the network with its output and the cross-entropy of its scores, which are before a softmax if any."""
    loaded, last = backwire.onnx.load(model), model.graph.node[-1]
    scores = loaded.value(last.input[0] if last.op_type == "Softmax" else last.output[0])
    loss = bw.softmax_cross_entropy(bw.reshape(scores, (1, -1)), bw.constant(np.array([3])))
    return bw.graph(loss=loss, outputs={"y": loaded.value(last.output[0])})


@pytest.mark.parametrize("name", NAMES)
def test_network_agrees_with_onnxruntime_and_a_step_lowers_the_loss_as_its_gradient_says(
    client: bw.Client, name: str
) -> None:
    """To first order, a step of rate r along the gradient g lowers the loss by r |g|^2."""
    model = network(name)
    feeds = image(model.graph)
    wanted = run(model, feeds)
    session = client.create_session(with_loss(model), optimizer=bw.SGD(1.0))
    before = session.forward(feeds, "eval")
    np.testing.assert_allclose(before.outputs["y"], wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())
    assert before.loss is not None
    norm = session.train_step(feeds, learning_rate=0.0).gradient_norm
    session.train_step(feeds, learning_rate=PART * before.loss / norm**2)
    after = session.forward(feeds, "eval", outputs=()).loss
    assert after is not None
    assert (before.loss - after) / before.loss == pytest.approx(PART, rel=0.01)
