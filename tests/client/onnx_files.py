"""ONNX files for the tests of commands about models, and data for them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], arrays: dict[str, Any]) -> str:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return str(path)


def info(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def network(path: Path, sizes: tuple[int, ...], last: str = "") -> str:
    """Saves dense layers with tanh between them, of input `x` and output `y`, and if wanted an operator at the end."""
    draw = np.random.default_rng(0)
    nodes, arrays, value = [], {}, "x"
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), 1):
        arrays[f"w{layer}"] = (draw.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)).astype("f4")
        arrays[f"b{layer}"] = np.zeros(fan_out, "f4")
        final = layer == len(sizes) - 1
        name = f"z{layer}" if last or not final else "y"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [name]))
        op, value = ("Tanh", f"a{layer}") if not final else (last, "y")
        if op:
            nodes.append(helper.make_node(op, [name], [value]))
    return save(path, nodes, [info("x", ["batch", sizes[0]])], [info("y", ["batch", sizes[-1]])], arrays)


def clusters(classes: int, each: int = 40) -> tuple[Any, Any]:
    """Points around as many centres in a plane as there are classes, and which centre each is of."""
    draw = np.random.default_rng(1)
    labels = np.arange(classes * each) % classes
    angle = 2 * np.pi * labels / classes
    centres = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centres + draw.normal(size=centres.shape) * 0.3).astype("f4"), labels
