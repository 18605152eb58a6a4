"""What `backwire.onnx.load` makes of a model, and what it refuses."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import backwire as bw
import backwire.onnx


def tensor(name: str, value: Any, dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def info(name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 21,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def perceptron(opset: int = 21) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "hidden.weight", "hidden.bias"], ["h"], transB=1),
        helper.make_node("Clip", ["h", "low", "high"], ["c"]),
        helper.make_node("MatMul", ["c", "head.weight"], ["m"]),
        helper.make_node("Gather", ["m", "order"], ["logits"], axis=1),
    ]
    initializers = [
        tensor("hidden.weight", np.ones((4, 3))),
        tensor("hidden.bias", np.ones(4)),
        tensor("head.weight", np.ones((4, 2))),
        tensor("low", 0.0),
        tensor("high", 6.0),
        tensor("order", [1, 0], "int64"),
    ]
    return model(nodes, [info("x", ["batch", 3])], [info("logits", ["batch", 2])], initializers, opset)


def parameters(graph: bw.Graph) -> dict[str, bool]:
    return {item.name: item.frozen for item in graph.proto.parameters}


def test_floating_initializers_become_parameters_of_their_names() -> None:
    graph = backwire.onnx.load(perceptron())
    assert parameters(graph) == {"hidden.weight": False, "hidden.bias": False, "head.weight": False}
    assert {constant.name for constant in graph.proto.constants} == {"low", "high", "order"}
    assert graph.proto.opset_version == 21


def test_patterns_freeze_parameters() -> None:
    frozen = {"hidden.weight": True, "hidden.bias": True, "head.weight": False}
    assert parameters(backwire.onnx.load(perceptron(), frozen="hidden.*")) == frozen
    assert parameters(backwire.onnx.load(perceptron(), frozen=["*.bias", "hidden.w*"])) == frozen


def test_a_pattern_that_matches_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(bw.UnknownNameError, match=r"'encoder\.\*' matches none .*hidden\.weight"):
        backwire.onnx.load(perceptron(), frozen=["encoder.*"])


def test_running_statistics_are_frozen() -> None:
    names = ["scale", "bias", "mean", "var"]
    made = model(
        [helper.make_node("BatchNormalization", ["x", *names], ["y"])],
        [info("x", [None, 2])],
        [info("y", [None, 2])],
        [tensor(name, np.ones(2)) for name in names],
    )
    assert parameters(backwire.onnx.load(made)) == {"scale": False, "bias": False, "mean": True, "var": True}


def test_what_pytorch_marks_as_a_buffer_is_frozen() -> None:
    made = perceptron(opset=18)
    buffer = made.graph.value_info.add(name="head.weight")
    buffer.metadata_props.add(key="pkg.torch.export.graph_signature.InputSpec.kind", value="BUFFER")
    buffer.type.CopyFrom(info("head.weight", [4, 2]).type)
    assert parameters(backwire.onnx.load(made)) == {"hidden.weight": False, "hidden.bias": False, "head.weight": True}


def test_values_know_their_shapes_and_can_be_built_upon() -> None:
    graph = backwire.onnx.load(perceptron())
    assert (graph.value("logits").shape, graph.value("h").shape) == (("batch", 2), ("batch", 4))
    assert graph.value("x").shape == ("batch", 3)
    loss = bw.graph(loss=bw.mean(graph.value("logits")))
    assert parameters(loss) == parameters(graph)
    with pytest.raises(bw.UnknownNameError, match=r"no value 'nothing'.*logits, x"):
        graph.value("nothing")


def test_a_file_gives_the_same_graph_as_the_model_and_the_model_is_not_changed(tmp_path: Path) -> None:
    made = perceptron(opset=13)
    before = made.SerializeToString(deterministic=True)
    onnx.save(made, tmp_path / "model.onnx")
    assert backwire.onnx.load(tmp_path / "model.onnx") == backwire.onnx.load(made)
    assert made.SerializeToString(deterministic=True) == before


def test_a_scalar_output_of_that_name_is_the_loss() -> None:
    made = model([helper.make_node("Mul", ["x", "w"], ["loss"])], [info("x", [])], [info("loss", [])], [tensor("w", 2)])
    graph = backwire.onnx.load(made)
    assert (graph.proto.loss, dict(graph.proto.outputs)) == ("loss", {})
    several = model([helper.make_node("Abs", ["x"], ["loss"])], [info("x", [2])], [info("loss", [2])])
    with pytest.raises(bw.GraphError, match="has the name of the loss, but several elements"):
        backwire.onnx.load(several)


def test_all_that_is_unsupported_is_one_error() -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [info("b", [2])])
    nodes = [
        helper.make_node("If", ["c"], ["i"], name="choice", else_branch=branch, then_branch=branch),
        helper.make_node("FusedThing", ["x"], ["f"], domain="com.example"),
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
        helper.make_node("Constant", [], ["t"], value_string="text"),
        helper.make_node("Cast", ["x"], ["q"], to=TensorProto.FLOAT8E4M3FN),
        helper.make_node("RegexFullMatch", ["words"], ["m"], pattern="a"),
        helper.make_node("Rellu", ["x"], ["r"]),
    ]
    inputs = [info("x", [2]), info("c", [], TensorProto.BOOL), info("words", [1], TensorProto.STRING)]
    made = model(nodes, inputs, [info("y", [4])])
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(bw.GraphError) as caught:
        backwire.onnx.load(made)
    first, *rest = str(caught.value).splitlines()
    assert first == "9 parts of the model are not supported; export the model without:"
    for line, expected in zip(
        rest,
        (
            "input 'words': it is a tensor of string",
            "node 0, If 'choice': attribute 'else_branch' is a graph: control flow; attribute 'then_branch'",
            "node 1, FusedThing 'f': it is of the domain 'com.example', not of the ONNX operator set",
            "node 2, SequenceConstruct 's': 's' is a sequence",
            "node 3, ConcatFromSequence 'y': 's' is a sequence",
            "node 4, Constant 't': it is a text",
            "node 5, Cast 'q': 'q' is a tensor of float8e4m3fn",
            "node 6, RegexFullMatch 'm': 'words' is a tensor of string",
            "node 7, Rellu 'r': ONNX has no operator of that name",
        ),
        strict=True,
    ):
        assert line.strip().startswith(expected)


@pytest.mark.parametrize(
    ("opset", "message"), [(5, "operator set 5, and Clip, Gemm changed .* export it again"), (99, "knows no newer one")]
)
def test_operator_sets_out_of_range_are_refused(opset: int, message: str) -> None:
    with pytest.raises(bw.GraphError, match=message):
        backwire.onnx.load(perceptron(opset))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_bytes(b"\xff no model")
    with pytest.raises(bw.GraphError, match="is no ONNX model"):
        backwire.onnx.load(tmp_path / "notes.onnx")
    broken = model([helper.make_node("Relu", ["nowhere"], ["y"])], [], [info("y", [2])])
    with pytest.raises(bw.GraphError, match=r"not valid.*nowhere"):
        backwire.onnx.load(broken)


def run(code: str) -> subprocess.CompletedProcess[str]:
    path = [str(Path(package.__path__[0]).parent) for package in (bw, sys.modules["backwire_api"])]
    script = f"import sys; sys.path[:0] = {path}\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_the_package_does_without_onnx_until_it_is_asked() -> None:
    done = run("import backwire; assert 'onnx' not in sys.modules and 'backwire.onnx' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_without_the_extra_the_error_tells_how_to_install_it() -> None:
    done = run("sys.modules['onnx'] = None\nimport backwire.onnx")
    assert done.stderr.splitlines()[-1] == (
        "ImportError: backwire.onnx needs the onnx package; install it with: pip install 'backwire[onnx]'"
    )
