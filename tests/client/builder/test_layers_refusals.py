"""Layers, losses and functions of networks refuse what does not fit, on the line that makes the mistake."""

from collections.abc import Callable
from typing import Any

import pytest

import backwire as bw

ROWS = bw.input("rows", ("batch", 4))
WORDS = bw.input("words", ("batch", 6, 4))
READ = bw.input("read", ("batch", "time", 4))
SEQUENCES = bw.input("sequences", ("batch", 4, 9))
IMAGES = bw.input("images", ("batch", 4, 8, 8))
LABELS = bw.input("labels", ("batch",), "int64")
TEXT = bw.input("text", ("batch", 3), "int64")
WEIGHT = bw.parameter("weight", (4, 2, 3, 3))


def block(x: bw.Value) -> bw.Value:
    return bw.transformer_encoder_block(x, heads=2, hidden=8, name="b")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bw.conv1d(IMAGES, 3, 3, name="c"), "conv1d 'c': .* no batch of sequences; reshape it"),
        (lambda: bw.conv3d(IMAGES, 3, 3, name="c"), "conv3d 'c': .* no batch of volumes; reshape it"),
        (lambda: bw.conv2d(IMAGES, 3, 0, name="c"), "conv2d 'c': kernel_size=0 must be a number of at least 1"),
        (lambda: bw.conv1d(SEQUENCES, 3, 3, name="c", groups=2), "4 channels and 3 filters must be multiples"),
        (lambda: bw.conv_transpose2d(IMAGES, 3, 3, name="c", groups=3), "conv_transpose2d 'c': 4 channels"),
        (lambda: bw.conv_transpose2d(IMAGES, 3, 3, name="c", output_padding=1), "must be less than the stride"),
        (lambda: bw.conv_transpose2d(IMAGES, 3, 1, name="c", padding=4), "cuts off all there is; pad less"),
        (lambda: bw.conv_transpose(SEQUENCES, WEIGHT), "must have the same rank"),
        (lambda: bw.conv_transpose(bw.input("x", (1, 3, 8, 8)), WEIGHT), "has 3 channels, but the kernel"),
        (lambda: bw.max_pool1d(IMAGES, 2), "MaxPool: .* no batch of sequences"),
        (lambda: bw.average_pool2d(IMAGES, 9), "a window of 9 does not fit into 8"),
        (lambda: bw.max_pool2d(LABELS, 2), "not floating-point"),
        (lambda: bw.global_max_pool(ROWS), "has no spatial axis"),
        (lambda: bw.adaptive_max_pool1d(bw.input("x", (1, 2, "time")), 3), "axis 2 of .* decides the windows"),
        (lambda: bw.adaptive_average_pool2d(IMAGES, 0), "at least 1"),
        (lambda: bw.group_norm(IMAGES, 3, name="n"), "3 groups do not divide the 4 channels"),
        (lambda: bw.instance_norm(ROWS, name="n"), "has no spatial axis"),
        (lambda: bw.rms_norm(ROWS, name="n", axes=0), "normalize over at least 1"),
    ],
)
def test_layers_of_images(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(bw.InvalidRequestError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bw.rnn(ROWS, 3, name="r"), "rnn 'r': .* no batch of sequences; reshape it to .batch, time, features."),
        (lambda: bw.rnn(WORDS, 3, name="r", activation="sine"), "'tanh' or 'relu'"),  # type: ignore[arg-type]
        (lambda: bw.gru(WORDS, 0, name="r"), "gru 'r': units=0, layers=1; both must be 1 or more"),
        (lambda: bw.gru(WORDS, 3, name="r", lengths=ROWS[:, 0]), "lengths .* must be integers"),
        (lambda: bw.gru(WORDS, 3, name="r", layers=2, state=bw.input("h", (1, "batch", 3))), "must be .2, batch, 3."),
        (lambda: bw.lstm(LABELS, 3, name="r"), "not floating-point"),
        (lambda: bw.lstm(bw.input("x", (2, 3, "f")), 3, name="r"), "axis 2 of .* must be a number"),
        (lambda: bw.attention(WORDS, WORDS, WORDS), "must be .batch, heads, steps, size.; reshape it"),
        (lambda: bw.multi_head_attention(WORDS, heads=3, name="a"), "3 heads do not divide 4 features"),
        (lambda: bw.multi_head_attention(WORDS, heads=2, key_heads=3, name="a"), "cannot share key_heads=3"),
        (lambda: bw.multi_head_attention(ROWS, heads=2, name="a"), "no batch of sequences"),
        (lambda: block(ROWS), "no batch of sequences"),
        (lambda: bw.residual(ROWS, lambda x: bw.dense(x, 3, name="d")), "must have one shape; give a shortcut"),
        (lambda: bw.sinusoidal_positions(READ), "not known before Forward; give the most as steps"),
        (lambda: bw.learned_positions(WORDS, name="p", steps=5), "has more than steps=5; raise or leave out steps"),
        (lambda: bw.rotary(bw.input("x", (2, 6, 3))), "is odd, but features turn in pairs"),
        (lambda: bw.rotary(bw.input("x", (4,))), "has no axis of steps"),
    ],
)
def test_layers_of_sequences(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(bw.InvalidRequestError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bw.dense(ROWS, -3, name="d"), r"parameter 'd/weight': \(4, -3\) is no shape; give whole numbers"),
        (lambda: bw.embedding(LABELS, 5, -3, name="e"), r"parameter 'e/weight': \(5, -3\) is no shape"),
        (lambda: bw.huber_loss(ROWS, 0, delta=0), "delta=0 must be above 0"),
        (lambda: bw.smooth_l1_loss(ROWS, 0, beta=-1), "beta=-1 must be above 0"),
        (lambda: bw.gaussian_loss(ROWS, 0, ROWS[:, 0]), "must have one shape"),
        (lambda: bw.poisson_loss(ROWS, ROWS[:, 0]), "must have one shape"),
        (lambda: bw.cosine_loss(ROWS, ROWS, ROWS), "must have one shape"),
        (lambda: bw.triplet_loss(ROWS, ROWS, WORDS), "must have one shape"),
        (lambda: bw.multiclass_hinge_loss(WORDS, LABELS), "must be .batch, classes.; reshape it"),
        (lambda: bw.ctc_loss(READ, TEXT), "axis 1 of .* must be a number"),
        (lambda: bw.ctc_loss(WORDS, TEXT, blank=-1), "blank=-1 is no class of 0 to 3; give"),
        (lambda: bw.ctc_loss(WORDS, LABELS), "must be .batch, time, classes., and labels"),
        (lambda: bw.ctc_loss(WORDS, ROWS), "labels .* must be integers"),
        (lambda: bw.softmax_cross_entropy(ROWS, LABELS, label_smoothing=1.5), "label_smoothing=1.5 is no share"),
        (lambda: bw.softmax_cross_entropy(ROWS, ROWS, ignore_index=0), "probabilities have no number to ignore"),
        (lambda: bw.softmax_cross_entropy(ROWS, LABELS, class_weights=[1, 2]), "one number for each of the 4 classes"),
        (lambda: bw.parameters_of(ROWS), "depends on no trainable parameter"),
        (lambda: bw.l2_penalty([]), "no value to penalize"),
    ],
)
def test_losses_and_regularizers(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(bw.BackwireError, match=message):
        build()
