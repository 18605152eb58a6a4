"""Models of operator sets before 11, in which Resize and Upsample did not say how they find places."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import backwire as bw
import backwire.onnx

SHAPE = (2, 3, 4, 5)


def resizing(op: str, opset: int, scales: list[float], mode: str) -> onnx.ModelProto:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", SHAPE), ("y", None))
    )
    inputs, attributes = ["x", "scales"], dict[str, Any](mode=mode)
    tensors = [numpy_helper.from_array(np.array(scales, np.float32), "scales")]
    if opset < 9:
        inputs, attributes["scales"], tensors = ["x"], scales, []
    node = helper.make_node(op, inputs, ["y"], **attributes)
    graph = helper.make_graph([node], "test", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("op", "opset", "scales"),
    [
        ("Upsample", 7, [1.0, 1.0, 1.6, 2.4]),
        ("Upsample", 9, [1.0, 1.0, 1.6, 2.4]),
        ("Resize", 10, [1.0, 1.0, 1.6, 2.4]),
        ("Resize", 10, [1.0, 1.0, 0.8, 0.6]),
    ],
)
def test_an_early_resize_finds_its_places_as_onnxruntime_does(
    op: str, opset: int, scales: list[float], mode: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = resizing(op, opset, scales, mode)
    x = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    runtime = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    graph = backwire.onnx.load(made)
    with bw.connect("embedded") as client, client.create_session(graph) as session:
        found = session.forward({"x": x}, mode="eval").outputs["y"]
    np.testing.assert_allclose(found, runtime.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


def test_an_early_resize_that_rounds_both_ways_is_refused() -> None:
    with pytest.raises(bw.GraphError, match="Resize 'y' grows along some axes and shrinks along others"):
        backwire.onnx.load(resizing("Resize", 10, [1.0, 1.0, 2.0, 0.5], "nearest"))
