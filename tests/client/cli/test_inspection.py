"""`backwire describe` and `backwire check-gradients`, with a real server."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.client.onnx_files import info, save

from backwire._cli import _check, _describe, _main

Run = Any


@pytest.fixture
def run(server: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = _main.main([*arguments, "--target", server])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    """A hidden layer of 4 and a softmax over 3, whose plain mean has no gradient."""
    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "hidden.weight", "hidden.bias"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "top.weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["chances"]),
    ]
    arrays = {
        "hidden.weight": draw.normal(size=(5, 4)).astype("f4"),
        "hidden.bias": np.zeros(4, "f4"),
        "top.weight": draw.normal(size=(4, 3)).astype("f4"),
    }
    return save(tmp_path / "classifier.onnx", nodes, [info("x", ["batch", 5])], [info("chances", ["batch", 3])], arrays)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """Looks 3 of 7 rows up; its second output is of integers."""
    nodes = [
        helper.make_node("Gather", ["table", "at"], ["row"]),
        helper.make_node("Identity", ["at"], ["same"]),
    ]
    inputs = [info("at", [3], TensorProto.INT64)]
    outputs = [info("row", [3, 2]), info("same", [3], TensorProto.INT64)]
    return save(tmp_path / "rows.onnx", nodes, inputs, outputs, {"table": np.ones((7, 2), "f4")})


def test_describe_tells_what_training_takes(run: Run, classifier: str) -> None:
    code, out, err = run("describe", classifier, "--shape", "x=32,5", "--values")
    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert lines["model"] == "classifier.onnx"
    assert lines["input"] == "x: float32[32, 5]"
    assert lines["output"] == "chances: float32[32, 3]"
    assert lines["loss"] == "mean(chances)"
    assert lines["parameters"] == "36, of which 36 train, 144 B"
    assert lines["session"].endswith("with optimizer adam")
    assert lines["TrainStep"].startswith("640 B sent")
    assert lines["logits"].split() == ["float32", "[32,", "3]"]
    assert "assumed" not in lines


def test_sizes_that_nothing_gives_are_said_to_be_assumed(run: Run, classifier: str) -> None:
    _, out, _ = run("describe", classifier)
    assert "input       x: float32[1, 5]\nassumed     batch=1; --shape gives others\n" in out


def test_describe_as_json_is_for_programs(run: Run, classifier: str) -> None:
    figures = {}
    for optimizer in ("none", "sgd", "adam"):
        code, out, _ = run("describe", classifier, "--shape", "x=8,5", "--optimizer", optimizer, "--json")
        assert code == 0
        figures[optimizer] = json.loads(out)
    found = figures["adam"]
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [8, 5]}]
    assert found["outputs"] == [{"name": "chances", "dtype": "float32", "shape": [8, 3]}]
    assert (found["parameter_count"], found["trainable_count"], found["assumed"]) == (36, 36, {})
    assert found["forward_flops"] >= 2 * 8 * (5 * 4 + 4 * 3)
    assert found["wire"]["forward"]["request"] == 8 * 5 * 4
    assert {"x", "hidden.weight", "logits"} <= {each["name"] for each in found["values"]}
    assert found["state_bytes"] - figures["sgd"]["state_bytes"] == 2 * 4 * 36


@pytest.mark.parametrize("name", sorted(_describe.OPTIMIZERS))
def test_every_optimizer_can_be_described(run: Run, classifier: str, name: str) -> None:
    assert run("describe", classifier, "--optimizer", name)[0] == 0


def test_every_optimizer_of_the_package_is_offered() -> None:
    assert set(_describe.OPTIMIZERS) == {
        "adadelta", "adagrad", "adam", "adamax", "adamw", "lamb", "lion", "muon", "nadam", "radam", "rmsprop", "sgd",
    }  # fmt: skip


def test_a_loss_of_the_model_is_used(run: Run, tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["product"], ["loss"]), helper.make_node("Identity", ["loss"], ["copy"])]
    nodes.insert(0, helper.make_node("Mul", ["x", "w"], ["product"]))
    outputs = [info("loss", [1, 1]), info("copy", [1, 1])]
    path = save(tmp_path / "model.onnx", nodes, [info("x", [2, 2])], outputs, {"w": np.ones((2, 2), "f4")})
    assert "loss        the model's own\n" in run("describe", path)[1]
    assert "loss        copy\n" in run("describe", path, "--loss", "copy")[1]
    assert "loss        mean(product)\n" in run("describe", path, "--loss", "product")[1]


def test_right_gradients_pass(run: Run, classifier: str) -> None:
    code, out, err = run("check-gradients", classifier)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("loss weighted_mean(chances) = ")
    assert lines[1].split() == ["PARAMETER", "CHECKED", "WORST", "ERROR", "AT", "GRADIENT", "DIFFERENCE"]
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["hidden.weight", "20"],
        ["hidden.bias", "4"],
        ["top.weight", "12"],
    ]
    assert lines[-1].endswith("within the tolerance of 0.0001")


def test_errors_above_the_tolerance_exit_with_1(run: Run, classifier: str) -> None:
    code, out, err = run("check-gradients", classifier, "--tolerance", "1e-300")
    assert (code, err) == (1, "")
    assert out.endswith("above the tolerance of 1e-300\n")
    document = json.loads(run("check-gradients", classifier, "--tolerance", "1e-300", "--json")[1])
    assert not document["passed"]
    assert document["worst_error"] == max(each["worst_error"] for each in document["parameters"]) > 1e-300


def test_outputs_whose_mean_is_constant_are_weighted(run: Run, classifier: str) -> None:
    document = json.loads(run("check-gradients", classifier, "--json")[1])
    assert document["passed"]
    assert document["dtype"] == "float64"
    for each in document["parameters"]:
        assert abs(each["gradient"]) > 1e-6


def test_elements_and_seed_choose_what_is_checked(run: Run, classifier: str) -> None:
    def document(*flags: str) -> Any:
        return json.loads(run("check-gradients", classifier, "--elements", "3", "--json", *flags)[1])

    first = document("--seed", "1")
    assert {each["checked"] for each in first["parameters"]} == {3}
    assert document("--seed", "1") == first
    assert document("--seed", "2")["loss"] != first["loss"]


def test_data_comes_from_a_file_and_the_rest_is_drawn(run: Run, rows: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", at=np.array([6, 6, 2]))
    code, out, _ = run("check-gradients", rows, "--inputs", str(tmp_path / "data.npz"), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["loss"]["of"] == "weighted_mean(row)"
    assert found["parameters"][0]["worst_error"] < 1e-6
    assert run("check-gradients", rows)[0] == 0, "indices that are drawn are within the table"


def test_frozen_models_have_nothing_to_check(run: Run, tmp_path: Path) -> None:
    path = save(tmp_path / "f.onnx", [helper.make_node("Relu", ["x"], ["y"])], [info("x", [2])], [info("y", [2])], {})
    code, out, err = run("check-gradients", path)
    assert (code, out) == (1, "")
    assert "no parameter that trains" in err


@pytest.mark.parametrize("command", ["describe", "check-gradients"])
def test_mistakes_are_one_line_without_a_traceback(run: Run, classifier: str, tmp_path: Path, command: str) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for arguments, words in {
        ("missing.onnx",): "cannot read missing.onnx: No such file",
        (str(tmp_path),): "Is a directory",
        (str(tmp_path / "text.onnx"),): "no ONNX model",
        (classifier, "--shape", "z=1"): "no input 'z'; its inputs are: x",
        (classifier, "--shape", "x=2,6"): "x",
        (classifier, "--shape", "x=2"): "x",
        (classifier, "--loss", "nothing"): "no value 'nothing'",
    }.items():
        code, out, err = run(command, *arguments)
        assert (code, out) == (1, ""), arguments
        assert err.startswith("backwire: ")
        assert words in err
        assert "Traceback" not in err


def test_missing_external_data_is_one_line(run: Run, classifier: str) -> None:
    model = onnx.load(classifier)
    onnx.save(model, classifier, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert run("describe", classifier)[0] == 0
    Path(classifier).with_name("weights.bin").unlink()
    code, out, err = run("describe", classifier)
    assert (code, out) == (1, "")
    assert "weights.bin" in err


def test_a_loss_of_integers_is_refused(run: Run, rows: str) -> None:
    assert "name a floating-point value with --loss" in run("describe", rows, "--loss", "same")[2]


def test_data_that_is_no_array_is_refused(run: Run, classifier: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([None], dtype=object))
    np.savez(tmp_path / "other.npz", z=np.zeros(2))
    np.save(tmp_path / "single.npy", np.zeros(2))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04" + bytes(40))
    for name in ("objects.npz", "single.npy", "text.npz", "broken.npz", "missing.npz"):
        code, out, err = run("check-gradients", classifier, "--inputs", str(tmp_path / name))
        assert (code, out) == (1, "")
        assert f"cannot read {tmp_path / name}" in err
    assert "no input 'z'" in run("check-gradients", classifier, "--inputs", str(tmp_path / "other.npz"))[2]


def test_without_the_onnx_package_the_extra_is_named(
    run: Run, classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.startswith("backwire.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = run("describe", classifier)
    assert (code, out) == (1, "")
    assert "pip install 'backwire[onnx]'" in err


def test_tolerances_are_wider_where_only_float32_computes() -> None:
    assert _check.TOLERANCES["float64"] < _check.TOLERANCES["float32"]


def test_a_private_server_does(classifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["check-gradients", classifier]) == 0
    assert "within the tolerance" in capsys.readouterr().out
