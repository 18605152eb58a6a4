"""Models of several operator sets, and what onnxruntime makes of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ort = pytest.importorskip("onnxruntime")
Array = NDArray[Any]


def draw(*shape: int) -> Array:
    return np.random.default_rng(list(shape)).normal(scale=0.5, size=shape).astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str], opset: int = 13, **initializers: Array
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    domains = {"": opset, **{node.domain: 1 for node in nodes if node.domain}}
    opsets = [helper.make_opsetid(*domain) for domain in domains.items()]
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=7))


def perceptron(opset: int = 13) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    return model(nodes, ["batch", 6], opset, w1=draw(8, 6), b1=draw(8), w2=draw(8, 3), b2=draw(3))


def convolutional(opset: int = 11) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "k", "c"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["h", "low", "high"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
    ]
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    arrays = {name: np.asarray(value) for name, value in bounds.items()}
    return model(nodes, ["n", 1, 6, 6], opset, k=draw(4, 1, 3, 3), c=draw(4), w=draw(36, 3), b=draw(3), **arrays)


def changed_since(opset: int) -> onnx.ModelProto:
    """Operators that took attributes in operator set 11 which are inputs now, or whose defaults changed."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], axis=1),
        helper.make_node("Unsqueeze", ["s"], ["u"], axes=[1]),
        helper.make_node("ReduceMean", ["u"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Split", ["m"], ["left", "right"], axis=2, split=[1, 2]),
        helper.make_node("ReduceSum", ["left"], ["l"], axes=[2], keepdims=0),
        helper.make_node("Squeeze", ["l0"], ["l1"], axes=[0]),
        helper.make_node("Mul", ["right", "w"], ["p"]),
        helper.make_node("ReduceMax", ["p"], ["q"], axes=[2], keepdims=0),
        helper.make_node("Add", ["l", "q"], ["a"]),
        helper.make_node("Mul", ["a", "l1"], ["y"]),
    ]
    nodes.insert(5, helper.make_node("Unsqueeze", ["l"], ["l0"], axes=[0]))
    return model(nodes, [2, 4, 3], opset, w=draw(2))


def sequence(opset: int) -> onnx.ModelProto:
    """A split into a sequence with constant look-ups, as the PyTorch exporter writes `split`, `chunk` and `unbind`."""
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "one"], ["b"]),
        helper.make_node("SequenceAt", ["parts", "last"], ["c"]),
        helper.make_node("Mul", ["b", "c"], ["bc"]),
        helper.make_node("SplitToSequence", ["bc"], ["rows"], axis=1, keepdims=0),
        helper.make_node("SequenceAt", ["rows", "one"], ["row"]),
        helper.make_node("Mul", ["row", "w"], ["y"]),
    ]
    integers = {"sizes": np.array([1, 2, 2]), "one": np.array(1), "last": np.array(-1)}
    return model(nodes, [3, 5], opset, w=draw(3), **integers)


def run(source: Path | onnx.ModelProto, x: Array) -> Array:
    content = source.read_bytes() if isinstance(source, Path) else source.SerializeToString()
    (y,) = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})
    return np.asarray(y)
