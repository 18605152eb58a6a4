"""`backwire train`, with a real server."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.client.onnx_files import clusters, info, network, save

import backwire as bw
from backwire._cli import _frames, _main
from backwire._cli._frames import Frame

Run = Any
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="there is none yet for the newest Python")


@pytest.fixture
def run(server: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = _main.main(["train", *arguments, "--target", server])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def data(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def answers(path: Path, x: Any) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


def figures(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_classifier_learns_and_onnxruntime_runs_what_was_written(run: Run, tmp_path: Path) -> None:
    x, labels = clusters(3)
    model, arrays = network(tmp_path / "m.onnx", (2, 8, 3), "Softmax"), data(tmp_path / "d.npz", x=x, y=labels)
    before = np.mean(answers(tmp_path / "m.onnx", x).argmax(axis=1) == labels)
    code, out, err = run(model, arrays, "--epochs", "12", "--learning-rate", "0.02", "--validation", "0.25")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "m.onnx: cross-entropy(y, y) of 120 examples with adam 0.02, batches of 32"
    assert re.split(r"\s{2,}", lines[1].strip()) == [
        "EPOCH", "STEPS", "LOSS", "ACCURACY", "VALIDATION LOSS", "VALIDATION ACCURACY", "SECONDS",
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines[2:-1]] == [[str(epoch), "3"] for epoch in range(1, 13)]
    written = tmp_path / "m-trained.onnx"
    assert lines[-1] == f"model: {written}"
    chances = answers(written, x)
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-5), "the model still ends in what it ended in"
    assert np.mean(chances.argmax(axis=1) == labels) > max(0.95, before)


def test_a_model_of_one_output_learns_yes_and_no(run: Run, tmp_path: Path) -> None:
    x, labels = clusters(2)
    model = network(tmp_path / "m.onnx", (2, 1), "Sigmoid")
    arrays = data(tmp_path / "d.npz", x=x, y=labels.astype(bool))
    code, out, _ = run(model, arrays, "--epochs", "10", "--learning-rate", "0.05", "--json")
    epochs = figures(out)[:-1]
    assert (code, len(epochs)) == (0, 10)
    assert epochs[-1]["figures"]["accuracy"] > 0.95
    assert epochs[-1]["figures"]["loss"] < epochs[0]["figures"]["loss"]


def test_quantities_are_fitted_and_the_end_says_what_was_done(run: Run, tmp_path: Path) -> None:
    x, _ = clusters(4)
    model, arrays = network(tmp_path / "m.onnx", (2, 1)), data(tmp_path / "d.npz", x=x, y=x @ [2.0, -1.0] + 0.5)
    where = tmp_path / "fitted.onnx"
    options = ("--epochs", "60", "--learning-rate", "0.1", "--save", str(where), "--json")
    code, out, _ = run(model, arrays, *options)
    *epochs, end = figures(out)
    assert code == 0
    assert end == {
        "model": str(where),
        "loss": "squared-error(y, y)",
        "epochs": 60,
        "steps": 300,
        "stopped": None,
        "session": None,
    }
    assert set(epochs[0]) == {"epoch", "steps", "figures", "validation", "learning_rate", "seconds"}
    assert set(epochs[0]["figures"]) == {"loss"}
    assert np.allclose(answers(where, x)[:, 0], x @ [2.0, -1.0] + 0.5, atol=0.05)


@pytest.mark.parametrize("loss", ["absolute-error", "huber"])
def test_other_losses_can_be_chosen(run: Run, tmp_path: Path, loss: str) -> None:
    x, _ = clusters(2)
    model, arrays = network(tmp_path / "m.onnx", (2, 2)), data(tmp_path / "d.npz", x=x, wanted=-x)
    code, out, _ = run(model, arrays, "--loss", loss, "--epochs", "5", "--learning-rate", "0.05", "--json")
    *epochs, end = figures(out)
    assert (code, end["loss"]) == (0, f"{loss}(y, wanted)")
    assert epochs[-1]["figures"]["loss"] < epochs[0]["figures"]["loss"]


def test_a_value_of_the_model_can_be_lowered(run: Run, tmp_path: Path) -> None:
    x, _ = clusters(2)
    model, arrays = network(tmp_path / "m.onnx", (2, 3), "Softplus"), data(tmp_path / "d.npz", x=x)
    code, out, _ = run(model, arrays, "--loss", "y", "--epochs", "3", "--learning-rate", "0.1", "--json")
    *epochs, end = figures(out)
    assert (code, end["loss"]) == (0, "y")
    assert epochs[-1]["figures"]["loss"] < epochs[0]["figures"]["loss"]


def test_a_loss_of_the_models_own_is_lowered(run: Run, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Sub", ["y", "t"], ["error"]),
        helper.make_node("Mul", ["error", "error"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["loss"], keepdims=0),
    ]
    inputs, outputs = [info("x", ["n", 2]), info("t", ["n", 1])], [info("loss", []), info("y", ["n", 1])]
    model = save(tmp_path / "m.onnx", nodes, inputs, outputs, {"w": np.zeros((2, 1), "f4")})
    x, _ = clusters(4)
    arrays = data(tmp_path / "d.npz", x=x, t=x @ np.array([[1.0], [3.0]], "f4"))
    code, out, _ = run(model, arrays, "--epochs", "20", "--learning-rate", "0.1", "--json")
    *epochs, end = figures(out)
    assert (code, end["loss"]) == (0, "the model's own")
    assert epochs[-1]["figures"]["loss"] < 1e-2 < epochs[0]["figures"]["loss"]


def test_patience_ends_a_training_that_gets_no_better(run: Run, tmp_path: Path) -> None:
    model = network(tmp_path / "m.onnx", (2, 1))
    arrays = data(tmp_path / "d.npz", x=np.zeros((8, 2), "f4"), y=np.zeros(8, "f4"))
    code, out, _ = run(model, arrays, "--patience", "2", "--epochs", "9")
    assert code == 0
    assert "stopped: loss was not better than 0 for 2 epochs" in out
    assert "\n         4" not in out


def test_the_same_seed_gives_the_same_bits(run: Run, tmp_path: Path) -> None:
    x, labels = clusters(3)
    model, arrays = network(tmp_path / "m.onnx", (2, 8, 3)), data(tmp_path / "d.npz", x=x, y=labels)
    losses = []
    for seed in ("1", "1", "2"):
        epochs = figures(run(model, arrays, "--epochs", "2", "--seed", seed, "--json")[1])[:-1]
        losses.append([each["figures"]["loss"] for each in epochs])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_session_is_kept_only_when_asked(run: Run, server: str, tmp_path: Path) -> None:
    x, labels = clusters(3)
    model, arrays = network(tmp_path / "m.onnx", (2, 3)), data(tmp_path / "d.npz", x=x, y=labels)
    with bw.connect(server) as client:
        assert run(model, arrays, "--epochs", "1")[0] == 0
        assert list(client.sessions()) == []
        _, out, _ = run(model, arrays, "--epochs", "1", "--keep")
        kept = client.session(re.search(r"^session: (\S+)$", out, re.MULTILINE)[1])  # type: ignore[index]
        assert kept.info().step == 4
        kept.close()


def test_on_a_terminal_it_is_drawn_anew_for_each_epoch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Frame] = []
    monkeypatch.setattr(_frames, "live", lambda: shown.extend)
    x, labels = clusters(3)
    model, arrays = network(tmp_path / "m.onnx", (2, 3)), data(tmp_path / "d.npz", x=x, y=labels)
    code, out, _ = run(model, arrays, "--epochs", "3")
    assert (code, [len(frame.rows) for frame in shown]) == (0, [1, 2, 3])
    curves = [line.split()[0] for line in shown[-1].lines[1:]]
    assert curves == ["loss", "accuracy"]
    assert out.splitlines()[: len(shown[-1].lines)] == list(shown[-1].lines), "the last frame stays"
    assert run(model, arrays, "--epochs", "1", "--json")[0] == 0
    assert len(shown) == 3, "JSON is for programs"


def test_an_interrupt_keeps_what_was_learned(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = clusters(3)
    model, arrays = network(tmp_path / "m.onnx", (2, 3)), data(tmp_path / "d.npz", x=x, y=labels)
    fit = bw.Session.fit

    def interrupted(session: bw.Session, *data: Any, epochs: int, **settings: Any) -> bw.History:
        if epochs == before:
            raise KeyboardInterrupt
        return fit(session, *data, epochs=epochs, **settings)

    monkeypatch.setattr(bw.Session, "fit", interrupted)
    before = 3
    code, out, err = run(model, arrays, "--learning-rate", "0.1")
    assert (code, err) == (130, "")
    assert out.splitlines()[-2:] == ["stopped: interrupted after 8 steps", f"model: {tmp_path / 'm-trained.onnx'}"]
    assert not np.allclose(answers(tmp_path / "m-trained.onnx", x), answers(tmp_path / "m.onnx", x))
    (tmp_path / "m-trained.onnx").unlink()
    before = 1
    assert run(model, arrays)[0] == 130
    assert not (tmp_path / "m-trained.onnx").exists(), "nothing was learned"


def test_mistakes_are_one_line_that_says_what_to_do(run: Run, server: str, tmp_path: Path) -> None:
    x, labels = clusters(3)
    model = network(tmp_path / "m.onnx", (2, 3))
    both = data(tmp_path / "both.npz", x=x, a=labels, b=labels)
    for arguments, words in {
        (model, data(tmp_path / "x.npz", x=x)): "add an array of them to the file, or name a value",
        (model, both): "several arrays that are no inputs, a, b; name the array of labels with --labels",
        (model, both, "--labels", "c"): "no array 'c'; its arrays are: x, a, b",
        (model, both, "--labels", "a", "--output", "q"): "no value 'q'",
        (model, both, "--loss", "y"): "no input 'a'; its inputs are: x",
        (model, data(tmp_path / "f.npz", x=x, y=x), "--loss", "cross-entropy"): "make it int64",
        (model, data(tmp_path / "l.npz", y=labels)): "'x'",
        (model, data(tmp_path / "n.npz", x=x, y=labels), "--save", str(tmp_path)): "directory",
    }.items():
        code, out, err = run(*arguments, "--epochs", "1", "--json")
        assert code == 1, arguments
        assert out.count("\n") <= 1, "an epoch at most"
        assert err.startswith("backwire: ")
        assert err.count("\n") == 1
        assert words in err
    with bw.connect(server) as client:
        assert list(client.sessions()) == [], "none is left behind"


def test_a_private_server_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["train", "m.onnx", "d.npz", "--keep"]) == 1
    assert "name one with --target" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--validation=1", "--validation=0", "--epochs=0", "--patience=0", "--optimizer=x"])
def test_wrong_usage_exits_with_2(option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        _main.main(["train", "m.onnx", "d.npz", option])
    assert ended.value.code == 2
