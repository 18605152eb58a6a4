"""`backwire graph`, with a real server."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.client.onnx_files import info, network, save

import backwire as bw
from backwire._cli import _drawing, _drawing_text, _main
from backwire._cli._drawing import Arrow, Box, Drawing

Run = Any

needs_graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


@pytest.fixture
def run(server: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = _main.main(["graph", *arguments, "--target", server])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def model(tmp_path: Path) -> str:
    return network(tmp_path / "m.onnx", (5, 4, 3))


def drawn(run: Run, *arguments: str) -> Drawing:
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    boxes = [Box(**{**each, "notes": tuple(each["notes"])}) for each in found["boxes"]]
    return Drawing(boxes, [Arrow(**each) for each in found["arrows"]])


def titled(drawing: Drawing, way: str) -> set[tuple[str, str]]:
    """The arrows of a way, by the titles of their boxes."""
    titles = {box.id: box.title for box in drawing.boxes}
    return {(titles[arrow.start], titles[arrow.end]) for arrow in drawing.arrows if arrow.way == way}


def test_values_go_forward_and_gradients_back_to_the_parameters(run: Run, model: str) -> None:
    found = drawn(run, model, "--shape", "x=32,5")
    assert [box.title for box in found.boxes if box.kind == "gradient"] == [
        "∇ ReduceMean", "∇ Gemm", "∇ Tanh", "∇ Gemm",
    ]  # fmt: skip
    assert {box.title for box in found.boxes if box.kind == "slope"} == {"∇ w1", "∇ b1", "∇ w2", "∇ b2"}
    assert {("x", "Gemm"), ("Gemm", "Tanh"), ("Gemm", "y"), ("ReduceMean", "loss")} <= titled(found, "value")
    assert titled(found, "gradient") == {
        ("loss", "∇ ReduceMean"),
        ("∇ ReduceMean", "∇ Gemm"),
        ("∇ Gemm", "∇ Tanh"),
        ("∇ Tanh", "∇ Gemm"),
        *(("∇ Gemm", f"∇ {name}") for name in ("w1", "b1", "w2", "b2")),
    }
    assert titled(found, "kept") == {(op, f"∇ {op}") for op in ("Gemm", "Tanh", "ReduceMean")}
    assert next(box for box in found.boxes if box.title == "Tanh").notes == ("a1", "float32[32, 4]")


def test_a_gradient_and_what_it_is_of_have_one_shape(run: Run, model: str) -> None:
    found = drawn(run, model, "--shape", "x=32,5")
    boxes = {box.id: box for box in found.boxes}
    for arrow in found.arrows:
        end = boxes[arrow.end]
        if arrow.way == "gradient":
            assert arrow.text == boxes[end.beside].notes[-1]


def test_forward_alone_has_no_gradients_and_needs_no_loss(run: Run, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)]
    whole = save(tmp_path / "m.onnx", nodes, [info("x", [2])], [info("y", [2], TensorProto.INT64)], {})
    assert {box.kind for box in drawn(run, whole, "--forward").boxes} == {"input", "op", "output"}
    code, _, err = run(whole)
    assert (code, "no loss can be made" in err) == (1, True)


def test_no_gradient_goes_where_none_is_needed(run: Run, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["before"]),
        helper.make_node("Mul", ["before", "w"], ["scaled"]),
        helper.make_node("ArgMax", ["scaled"], ["at"], axis=1),
        helper.make_node("Gather", ["scaled", "one"], ["chosen"], axis=1),
        helper.make_node("Cast", ["v"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["chosen", "flat"], ["y"]),
    ]
    arrays = {"w": np.ones(3, "f4"), "v": np.ones(1, "f4"), "one": np.ones(1, "i8")}
    outputs = [info("y", [2, 1]), info("at", [2, 1], TensorProto.INT64)]
    found = drawn(run, save(tmp_path / "m.onnx", nodes, [info("x", [2, 3])], outputs, arrays))
    assert titled(found, "gradient") == {
        ("loss", "∇ ReduceMean"),
        ("∇ ReduceMean", "∇ Add"),
        ("∇ Add", "∇ Gather"),
        ("∇ Gather", "∇ Mul"),
        ("∇ Mul", "∇ w"),
    }, "not through what has no gradient, nor to inputs and whole numbers"


def test_gradients_that_meet_arrive_at_one_box(run: Run, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    found = drawn(run, save(tmp_path / "m.onnx", nodes, [info("x", [3])], [info("y", [3])], {"w": np.ones(3, "f4")}))
    assert {("∇ Add", "∇ Mul"), ("∇ Tanh", "∇ Mul"), ("∇ Add", "∇ Tanh")} <= titled(found, "gradient")


def test_gradients_in_a_graph_are_drawn_with_what_they_depend_on(server: str) -> None:
    with bw.connect(server) as client:
        w = bw.parameter("w", [1.0, 2.0])
        loss = bw.sum(w**4)
        (slope,) = bw.gradient(loss, [w])
        graph = bw.graph(loss=bw.sum(slope * slope))
        found = _drawing.drawing(graph.proto, client.describe(graph).values, client.ops(), backward=True)
    assert {("w", "Gradient"), ("ReduceSum", "Gradient")} <= titled(found, "value")
    assert ("∇ Gradient", "∇ w") in titled(found, "gradient")


def test_a_graph_without_loss_has_gradients_from_all_its_outputs(server: str) -> None:
    with bw.connect(server) as client:
        x, w = bw.input("x", (2,)), bw.parameter("w", [1.0, 2.0])
        graph = bw.graph(outputs={"a": w * x, "b": bw.exp(w)})
        found = _drawing.drawing(graph.proto, client.describe(graph).values, client.ops(), backward=True)
    assert {("a", "∇ Mul"), ("b", "∇ Exp"), ("∇ Mul", "∇ w"), ("∇ Exp", "∇ w")} == titled(found, "gradient")


def test_an_update_goes_back_to_the_parameter_that_it_replaces(server: str) -> None:
    with bw.connect(server) as client:
        x = bw.input("x", ("batch", 3, 4, 4))
        graph = bw.graph(loss=bw.mean(bw.batch_norm(x, name="norm")))
        values = client.describe(graph, {"x": (2, 3, 4, 4)}).values
        found = _drawing.drawing(graph.proto, values, client.ops(), backward=False)
    updated = titled(found, "update")
    assert {start for start, _ in updated} == {"BatchNormalization"}
    assert {end for _, end in updated} == set(graph.proto.updates)
    assert {box.kind for box in found.boxes if box.title in graph.proto.updates} == {"frozen"}


def test_the_end_of_the_file_says_how_it_is_drawn(run: Run, model: str, tmp_path: Path) -> None:
    starts = {"dot": "digraph {", "gv": "digraph {", "mmd": "flowchart TB"}
    for suffix, start in starts.items():
        path = tmp_path / f"m.{suffix}"
        assert run(model, "--output", str(path)) == (0, "", "")
        assert path.read_text(encoding="utf-8").startswith(start)
    assert run(model)[1].startswith("flowchart TB")
    assert run(model, "--format", "dot")[1].startswith("digraph {")
    code, _, err = run(model, "--output", str(tmp_path / "m.png"))
    assert (code, "or give --format" in err) == (1, True)
    code, _, err = run(model, "--output", str(tmp_path / "none" / "m.dot"))
    assert (code, err.count("\n")) == (1, 1)


@needs_graphviz
def test_svg_shows_every_box_and_arrow(run: Run, model: str, tmp_path: Path) -> None:
    path = tmp_path / "m.svg"
    assert run(model, "--output", str(path)) == (0, "", "")
    root = ET.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    classes = [each.get("class") for each in root.iter("{http://www.w3.org/2000/svg}g")]
    found = drawn(run, model)
    assert (classes.count("node"), classes.count("edge")) == (len(found.boxes), len(found.arrows))
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"∇ w1", "float32[1, 5]", "loss"} <= texts


@needs_graphviz
def test_graphviz_reads_names_of_any_kind(run: Run, tmp_path: Path) -> None:
    name = 'a"b\\n<script>&#{}|;\n'
    nodes = [helper.make_node("Mul", ["x", name], ["y"])]
    model = save(tmp_path / "m.onnx", nodes, [info("x", [1])], [info("y", [1])], {name: np.ones(1, "f4")})
    code, out, err = run(model, "--format", "svg")
    assert (code, err) == (0, "")
    texts = [text.text for text in ET.fromstring(out.encode()).iter("{http://www.w3.org/2000/svg}text")]
    assert 'a"b\\n<script>&#{}|;�' in texts


def test_mermaid_gets_nothing_in_a_name_that_it_would_read() -> None:
    text = _drawing_text.mermaid(Drawing([Box("i0", "input", 'a"]<b>#`\n')], []))
    assert text.splitlines()[1] == '  i0(["a#34;]#60;b#62;#35;#96;#65533;"]):::is-input'


def test_without_graphviz_svg_is_refused_and_mermaid_named(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    code, out, err = run(model, "--format", "svg")
    assert (code, out) == (1, "")
    assert "svg needs Graphviz" in err
    assert "--format mermaid" in err
    assert run(model, "--format", "dot")[0] == 0


def test_a_graphviz_that_fails_is_told(run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho out of ink >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    code, _, err = run(model, "--format", "svg")
    assert code == 1
    assert "Graphviz failed: out of ink; use --format dot" in err


def test_a_profile_tells_work_and_time_of_operators_and_gradients(run: Run, model: str) -> None:
    found = drawn(run, model, "--shape", "x=32,5", "--profile", "2")
    (tanh,) = (box for box in found.boxes if box.title == "Tanh")
    (slope,) = (box for box in found.boxes if box.title == "∇ Tanh")
    assert re.fullmatch(r"128 FLOP, [\d.]+ µs", tanh.notes[-1])
    assert re.fullmatch(r"[\d.]+ FLOP, [\d.]+ µs", slope.notes[-1])
    plain = drawn(run, model, "--shape", "x=32,5")
    assert [box.title for box in plain.boxes] == [box.title for box in found.boxes]


def test_a_profile_of_the_forward_pass_tells_both_at_the_operator(run: Run, model: str) -> None:
    found = drawn(run, model, "--shape", "x=32,5", "--forward", "--profile", "1")
    (tanh,) = (box for box in found.boxes if box.title == "Tanh")
    assert tanh.notes[-1].startswith("∇ ")
