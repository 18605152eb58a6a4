"""A node as a model of its own: computed by the engine, and by onnxruntime."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]


def named(inputs: tuple[Any, ...]) -> tuple[dict[str, Array], list[str]]:
    """Returns the inputs by name, and the names in order, empty where an input is None."""
    names = ["" if each is None else f"x{index}" for index, each in enumerate(inputs)]
    return {name: np.asarray(each) for name, each in zip(names, inputs, strict=True) if name}, names


def model_of(op: str, *inputs: Any, **attributes: Any) -> tuple[Model, dict[str, Array]]:
    feeds, names = named(inputs)
    declared = tuple(Input(name, TensorType(each.dtype, each.shape)) for name, each in feeds.items())
    return Model(Graph(declared, (), {}, (Node(op, tuple(names), ("y",), attributes),), {"y": "y"})), feeds


def compute(op: str, *inputs: Any, training: bool = False, key: tuple[int, int] = (0, 0), **attributes: Any) -> Array:
    """Returns the output of a node with these inputs."""
    model, feeds = model_of(op, *inputs, **attributes)
    return model.forward(feeds, {}, training=training, key=key).outputs["y"]


def gradients(op: str, *inputs: Any, seed: Array, **attributes: Any) -> dict[str, Array]:
    """Returns the gradients of the output times the seed by all floating-point inputs, called x0, x1 and so on."""
    model, feeds = model_of(op, *inputs, **attributes)
    done = model.forward(feeds, {}, training=True)
    return model.backward(done, {"y": seed}, wrt=[name for name in feeds if feeds[name].dtype.kind == "f"]).inputs


def runtime(op: str, *inputs: Any, opset: int = 21, **attributes: Any) -> Array:
    """Returns what onnxruntime computes; skips the test where there is none."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    make = onnx.helper
    feeds, names = named(inputs)
    declared = [
        make.make_tensor_value_info(name, make.np_dtype_to_tensor_dtype(each.dtype), each.shape)
        for name, each in feeds.items()
    ]
    output = onnx.ValueInfoProto(name="y")
    graph = make.make_graph([make.make_node(op, names, ["y"], **attributes)], "graph", declared, [output])
    model = onnx.shape_inference.infer_shapes(make.make_model(graph, opset_imports=[make.make_opsetid("", opset)]))
    model.ir_version = 10
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])
