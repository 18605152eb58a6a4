"""Layers of sizes that each Forward chooses: results have the declared shapes, and onnxruntime computes the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backwire as bw

onnxruntime = pytest.importorskip("onnxruntime", reason="a development dependency; .ci/run installs it")
onnx = pytest.importorskip("backwire.onnx", reason="of the extra onnx; .ci/run installs it", exc_type=ImportError)

IMAGES = bw.input("x", ("batch", 4, 9, 8))
WORDS = bw.input("x", ("batch", "time", 8))
LENGTHS = bw.input("lengths", ("batch",), "int64")


def residual_network(x: bw.Value) -> bw.Value:
    h = bw.relu(bw.group_norm(bw.conv2d(x, 6, 3, name="a", stride=2, padding=1), 2, name="n"))
    h = bw.residual(h, lambda z: bw.conv2d(bw.relu(bw.instance_norm(z, name="i")), 6, 3, name="b", padding="same"))
    return bw.adaptive_average_pool2d(bw.max_pool2d(h, 2, stride=1), 3)


def hourglass(x: bw.Value) -> bw.Value:
    low = bw.silu(bw.conv2d(x, 8, 3, name="down", stride=2, padding=1))
    return bw.conv_transpose2d(low, 4, 3, name="up", stride=2, padding=1, output_padding=(0, 1))


def language_model(x: bw.Value) -> bw.Value:
    h = bw.learned_positions(bw.sinusoidal_positions(x, steps=9), name="p", steps=9)
    return bw.rms_norm(bw.transformer_encoder_block(h, heads=2, hidden=16, name="b", causal=True), name="n")


def translator(x: bw.Value) -> bw.Value:
    memory = bw.gru(x, 4, name="g", bidirectional=True)[0]
    return bw.transformer_decoder_block(x, memory, heads=2, hidden=16, name="b", norm_first=False, causal=False)


def reader(x: bw.Value) -> bw.Value:
    outputs, _, cell = bw.lstm(x, 3, name="l", layers=2, bidirectional=True, lengths=LENGTHS)
    return outputs @ bw.transpose(cell[2:], (1, 2, 0))[:, [0, 1, 2, 0, 1, 2]]


MODELS: dict[str, tuple[bw.Value, Callable[[bw.Value], bw.Value]]] = {
    "residual network": (IMAGES, residual_network),
    "hourglass": (IMAGES, hourglass),
    "language model": (WORDS, language_model),
    "translator": (WORDS, translator),
    "reader": (WORDS, reader),
    "rotated attention": (WORDS, lambda x: bw.multi_head_attention(bw.rotary(x, steps=20), heads=4, name="a")),
    "rnn": (WORDS, lambda x: bw.rnn(x, 3, name="r")[1]),
    "adaptive maxima": (IMAGES, lambda x: bw.adaptive_max_pool2d(bw.global_max_pool(x) * x, (4, 3))),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_compute_at_any_size_here_and_in_onnxruntime(name: str, client: bw.Client, tmp_path: Path) -> None:
    given, build = MODELS[name]
    y = build(given)
    draw = np.random.default_rng(3)
    with client.create_session(bw.graph(outputs={"y": y}), seed=3) as session:
        onnx.save(session, tmp_path / "model.onnx")
        runtime = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        for batch, time in ((2, 5), (3, 4)):
            inputs: dict[str, Any] = {"x": draw.normal(size=_sizes(given, batch, time)).astype(np.float32)}
            if name == "reader":
                inputs["lengths"] = draw.integers(1, time + 1, batch)
            found = session.forward(inputs, mode="eval").outputs["y"]
            assert found.shape == _sizes(y, batch, time)
            (other,) = runtime.run(["y"], inputs)
            np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5)


def test_layers_drop_elements_in_training_only(client: bw.Client) -> None:
    h, _ = bw.gru(WORDS, 8, name="g", layers=2, dropout=0.3)
    y = bw.transformer_encoder_block(h, heads=2, hidden=16, name="b", dropout=0.3)
    given = {"x": np.random.default_rng(0).normal(size=(2, 5, 8))}
    with client.create_session(bw.graph(outputs={"y": y})) as session:
        one, other = (session.forward(given).outputs["y"] for _ in range(2))
        told, again = (session.forward(given, mode="eval").outputs["y"] for _ in range(2))
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(told, again)


def _sizes(value: bw.Value, batch: int, time: int) -> tuple[int, ...]:
    names = {"batch": batch, "time": time}
    return tuple(dim if isinstance(dim, int) else names[str(dim)] for dim in value.shape or ())
