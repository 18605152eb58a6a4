"""Layers, losses and initializers: which nodes and parameters they make."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backwire as bw
from backwire_api.v1 import graph_pb2

X = bw.input("x", ("batch", 4))
IMAGES = bw.input("images", ("batch", 3, 8, 8))
LABELS = bw.input("labels", ("batch",), "int64")
Rule = graph_pb2.Initializer


def proto(value: bw.Value) -> graph_pb2.Graph:
    return bw.graph(outputs={"y": value}).proto


def ops(value: bw.Value) -> list[str]:
    return [node.op for node in proto(value).nodes]


def attributes(value: bw.Value) -> dict[str, Any]:
    def plain(attribute: graph_pb2.Attribute) -> Any:
        value = getattr(attribute, str(attribute.WhichOneof("kind")))
        return list(value.items) if hasattr(value, "items") else value

    return {name: plain(each) for name, each in proto(value).nodes[-1].attributes.items()}


def test_dense_of_a_matrix_is_one_gemm() -> None:
    y = bw.dense(X, 7, name="hidden")
    graph = proto(y)
    assert [(node.op, list(node.inputs)) for node in graph.nodes] == [("Gemm", ["x", "hidden/weight", "hidden/bias"])]
    weight, bias = graph.parameters
    assert (list(weight.initializer.shape), weight.initializer.unit_axis) == ([4, 7], 1)
    assert weight.initializer.distribution == Rule.DISTRIBUTION_GLOROT_UNIFORM
    assert (list(bias.initializer.shape), bias.initializer.location) == ([7], 0)
    assert y.shape == ("batch", 7)


def test_dense_of_other_ranks_multiplies_along_the_last_axis() -> None:
    y = bw.dense(bw.input("s", ("batch", "time", 4)), 7, name="hidden")
    assert ops(y) == ["MatMul", "Add"]
    assert y.shape == ("batch", "time", 7)
    assert ops(bw.dense(bw.input("v", (4,)), 7, name="hidden")) == ["MatMul", "Add"]


def test_dense_without_bias_has_one_parameter() -> None:
    graph = proto(bw.dense(X, 7, name="hidden", use_bias=False, initializer=bw.Orthogonal(gain=2)))
    assert [node.op for node in graph.nodes] == ["MatMul"]
    (weight,) = graph.parameters
    assert (weight.initializer.distribution, weight.initializer.gain) == (Rule.DISTRIBUTION_ORTHOGONAL, 2)


def test_parameters_of_layers_have_the_dtype_of_their_input() -> None:
    y = bw.dense(bw.input("x", (2, 3), "float64"), 7, name="hidden")
    assert y.dtype == np.float64
    assert {each.initializer.dtype for each in proto(y).parameters} == {2}


def test_conv2d_scales_its_kernel_for_relu_along_its_filters() -> None:
    y = bw.conv2d(IMAGES, 6, (3, 5), name="c", stride=2, padding=(1, 2), groups=3)
    weight, bias = proto(y).parameters
    assert list(weight.initializer.shape) == [6, 1, 3, 5]
    assert weight.initializer.distribution == Rule.DISTRIBUTION_HE_UNIFORM
    assert weight.initializer.gain == pytest.approx(np.sqrt(2))
    assert weight.initializer.unit_axis == 0
    assert list(bias.initializer.shape) == [6]
    assert attributes(y) == {
        "kernel_shape": [3, 5],
        "strides": [2, 2],
        "pads": [1, 2, 1, 2],
        "dilations": [1, 1],
        "group": 3,
    }
    assert y.shape == ("batch", 6, 4, 4)


@pytest.mark.parametrize(
    ("size", "dilation", "pads"), [(3, 1, [1, 1, 1, 1]), (2, 1, [0, 0, 1, 1]), (3, 2, [2, 2, 2, 2])]
)
def test_same_padding_keeps_the_size(size: int, dilation: int, pads: list[int]) -> None:
    y = bw.conv2d(IMAGES, 4, size, name="c", padding="same", dilation=dilation, use_bias=False)
    assert y.shape == ("batch", 4, 8, 8)
    assert attributes(y)["pads"] == pads


def test_conv_takes_any_number_of_spatial_axes() -> None:
    y = bw.conv(bw.input("s", ("batch", 2, 10)), bw.parameter("k", (5, 2, 3)), stride=2)
    assert y.shape == ("batch", 5, 4)


def test_embedding_gathers_rows() -> None:
    y = bw.embedding(bw.input("words", ("batch", 20), "int64"), 1000, 8, name="words_embedding")
    assert ops(y) == ["Gather"]
    assert y.shape == ("batch", 20, 8)
    (weight,) = proto(y).parameters
    assert (weight.name, list(weight.initializer.shape)) == ("words_embedding/weight", [1000, 8])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bw.dense(bw.input("x", (4, "features")), 3, name="d"), "dense 'd': axis -1 of .* must be a number"),
        (lambda: bw.dense(LABELS, 3, name="d"), "not floating-point"),
        (lambda: bw.dense(X, 3, name="d", initializer=bw.GlorotNormal(gain=float("nan"))), "give a finite number"),
        (lambda: bw.conv2d(X, 3, 3, name="c"), "conv2d 'c': .* no batch of images"),
        (lambda: bw.conv2d(IMAGES, 4, 3, name="c", groups=2), "multiples of groups=2"),
        (lambda: bw.conv2d(IMAGES, 4, 9, name="c"), "Conv: a window of 9 does not fit into 8"),
        (lambda: bw.conv2d(IMAGES, 4, 3, name="c", padding="same", stride=2), "'same' with stride 1"),
        (lambda: bw.conv2d(IMAGES, 4, 3, name="c", stride=(1, 2, 3)), "or 2 of them"),  # type: ignore[arg-type]
        (lambda: bw.conv(IMAGES, bw.parameter("k", (5, 2, 3, 3))), "3 channels, but the kernel .* takes 2"),
        (lambda: bw.conv(IMAGES, bw.parameter("k", (5, 3, 3))), "same rank"),
        (lambda: bw.conv(IMAGES, bw.input("k", ("n", 3, 3, 3))), "known sizes"),
        (lambda: bw.embedding(X, 3, 4, name="e"), "indices are integers"),
    ],
)
def test_layers_refuse_what_does_not_fit(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(bw.InvalidRequestError, match=message):
        build()


def test_lstm_remembers_at_first_and_reads_both_ways() -> None:
    outputs, state, cell = bw.lstm(bw.input("s", ("batch", 5, 4)), 3, name="r", bidirectional=True)
    assert (outputs.shape, state.shape, cell.shape) == (("batch", 5, 6), (2, "batch", 3), (2, "batch", 3))
    parameters = {each.name: each for each in proto(outputs).parameters}
    assert list(parameters) == [
        f"r/0/{way}{part}" for part in ("weight", "recurrent", "bias") for way in ("", "reversed/")
    ]
    assert list(parameters["r/0/weight"].initializer.shape) == [12, 4]
    assert parameters["r/0/recurrent"].initializer.distribution == Rule.DISTRIBUTION_ORTHOGONAL
    begin = np.frombuffer(parameters["r/0/bias"].value.data, np.float32)
    np.testing.assert_array_equal(begin, [0] * 6 + [1] * 3 + [0] * 3)


def test_only_a_gru_has_two_biases() -> None:
    sequences = bw.input("s", ("batch", 5, 4))
    names = {each.name for each in proto(bw.gru(sequences, 3, name="r")[0]).parameters}
    assert names == {"r/0/weight", "r/0/recurrent", "r/0/bias", "r/0/recurrent_bias"}
    assert len(proto(bw.rnn(sequences, 3, name="r")[0]).parameters) == 3


def test_dropout_lies_between_recurrent_layers_only() -> None:
    sequences = bw.input("s", ("batch", 5, 4))
    assert ops(bw.gru(sequences, 3, name="r", layers=3, dropout=0.5)[0]).count("Dropout") == 2
    assert "Dropout" not in ops(bw.gru(sequences, 3, name="r", dropout=0.5)[0])


def test_attention_of_heads_is_four_dense_layers() -> None:
    words = bw.input("words", ("batch", 6, 8))
    y = bw.multi_head_attention(words, heads=4, name="a", key_heads=2, use_bias=False)
    sizes = {each.name: list(each.initializer.shape) for each in proto(y).parameters}
    assert sizes == {
        "a/query/weight": [8, 8],
        "a/key/weight": [8, 4],
        "a/value/weight": [8, 4],
        "a/output/weight": [8, 8],
    }
    assert ops(y).count("Attention") == 1


def test_blocks_drop_what_they_add() -> None:
    words = bw.input("words", ("batch", 6, 8))
    y = bw.transformer_encoder_block(words, heads=2, hidden=16, name="b", dropout=0.1)
    assert ops(y).count("Dropout") == 3
    assert ops(bw.multi_head_attention(words, heads=2, name="a", dropout=0.1))[-1] == "Dropout"


def test_residual_adds_or_takes_a_shortcut() -> None:
    assert ops(bw.residual(X, bw.relu)) == ["Relu", "Add"]
    narrow = bw.residual(X, lambda x: bw.dense(x, 2, name="body"), shortcut=lambda x: bw.dense(x, 2, name="shortcut"))
    assert narrow.shape == ("batch", 2)


def test_parameters_of_a_value_are_the_trainable_ones_it_depends_on() -> None:
    y = bw.batch_norm(bw.dense(X, 3, name="d"), name="n")
    assert list(bw.parameters_of(y)) == ["d/bias", "d/weight", "n/bias", "n/scale"]
    assert list(bw.parameters_of(y, "?/bias")) == ["d/bias", "n/bias"]
    assert bw.l2_penalty(bw.parameters_of(y)["d/weight"]).shape == ()
