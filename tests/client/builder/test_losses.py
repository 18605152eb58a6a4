"""Losses and initializers: the nodes that they become, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.client.builder.test_layers import LABELS, Rule, X, attributes, ops, proto

import backwire as bw


def test_squared_error_has_the_textbooks_half_as_an_option() -> None:
    assert ops(bw.squared_error(X, X + 1)) == ["Add", "Sub", "Mul", "ReduceMean"]
    graph = proto(bw.squared_error(X, 1.0, half=True, reduction="sum"))
    assert [node.op for node in graph.nodes] == ["Sub", "Mul", "Mul", "ReduceSum"]
    assert bw.squared_error(X, 0, reduction="none").shape == ("batch", 4)


def test_absolute_error_and_sigmoid_cross_entropy_reduce_alike() -> None:
    assert ops(bw.absolute_error(X, 1)) == ["Sub", "Abs", "ReduceMean"]
    assert ops(bw.sigmoid_cross_entropy(X, 1, reduction="sum")) == ["Softplus", "Mul", "Sub", "ReduceSum"]


def test_errors_refuse_to_broadcast_predictions_against_targets() -> None:
    with pytest.raises(bw.ShapeError, match=r"squared_error: .*\[batch, 1\].*\[batch\].* must have one shape"):
        bw.squared_error(bw.input("p", ("batch", 1)), bw.input("t", ("batch",)))


def test_softmax_cross_entropy_of_class_numbers_is_one_node() -> None:
    loss = bw.softmax_cross_entropy(X, LABELS)
    assert ops(loss) == ["SoftmaxCrossEntropyLoss"]
    assert attributes(loss) == {"reduction": "mean"}
    assert loss.shape == ()
    assert bw.softmax_cross_entropy(X, LABELS, reduction="none").shape == ("batch",)
    assert ops(bw.softmax_cross_entropy(X, bw.input("u", ("batch",), "uint8"))) == ["Cast", "SoftmaxCrossEntropyLoss"]


def test_softmax_cross_entropy_takes_probabilities_too() -> None:
    loss = bw.softmax_cross_entropy(X, bw.input("p", ("batch", 4)))
    assert ops(loss) == ["LogSoftmax", "Mul", "ReduceSum", "Neg", "ReduceMean"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bw.softmax_cross_entropy(X, bw.input("l", ("batch", 4), "int64")), "do not go with logits"),
        (lambda: bw.softmax_cross_entropy(bw.input("v", (4,)), bw.input("l", (), "int64")), "do not go with logits"),
        (lambda: bw.softmax_cross_entropy(X, bw.input("l", ("batch",), "bool")), "must be integers"),
        (lambda: bw.softmax_cross_entropy(X, [1, 2]), "labels are no Value"),
        (lambda: bw.softmax_cross_entropy(LABELS, LABELS), "not floating-point"),
        (lambda: bw.softmax_cross_entropy(X, LABELS, reduction="average"), "'mean', 'sum' or 'none'"),  # type: ignore[arg-type]
        (lambda: bw.squared_error(X, 0, reduction="average"), "'mean', 'sum' or 'none'"),  # type: ignore[arg-type]
    ],
)
def test_losses_refuse_what_does_not_fit(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(bw.InvalidRequestError, match=message):
        build()


@pytest.mark.parametrize(
    ("initializer", "distribution", "figures"),
    [
        (bw.Zeros(), Rule.DISTRIBUTION_CONSTANT, {"location": 0}),
        (bw.Ones(), Rule.DISTRIBUTION_CONSTANT, {"location": 1}),
        (bw.Constant(0.25), Rule.DISTRIBUTION_CONSTANT, {"location": 0.25}),
        (bw.Uniform(low=-1, high=2), Rule.DISTRIBUTION_UNIFORM, {"location": -1, "scale": 2}),
        (bw.Normal(mean=1, standard_deviation=3), Rule.DISTRIBUTION_NORMAL, {"location": 1, "scale": 3}),
        (
            bw.TruncatedNormal(mean=1, standard_deviation=3),
            Rule.DISTRIBUTION_TRUNCATED_NORMAL,
            {"location": 1, "scale": 3},
        ),
        (bw.GlorotUniform(gain=2), Rule.DISTRIBUTION_GLOROT_UNIFORM, {"gain": 2}),
        (bw.GlorotNormal(), Rule.DISTRIBUTION_GLOROT_NORMAL, {"gain": 1}),
        (bw.HeUniform(), Rule.DISTRIBUTION_HE_UNIFORM, {"gain": 2**0.5}),
        (bw.HeNormal(gain=1), Rule.DISTRIBUTION_HE_NORMAL, {"gain": 1}),
        (bw.LeCunUniform(), Rule.DISTRIBUTION_HE_UNIFORM, {"gain": 1}),
        (bw.LeCunNormal(gain=3), Rule.DISTRIBUTION_HE_NORMAL, {"gain": 3}),
        (bw.Orthogonal(), Rule.DISTRIBUTION_ORTHOGONAL, {"gain": 1}),
    ],
    ids=repr,
)
def test_initializers_say_distribution_and_figures(
    initializer: bw.Initializer, distribution: int, figures: dict[str, float]
) -> None:
    (parameter,) = proto(bw.parameter("w", (3, 4), initializer=initializer, unit_axis=0)).parameters
    message = parameter.initializer
    assert (message.distribution, message.unit_axis, list(message.shape)) == (distribution, 0, [3, 4])
    sent = {field.name: value for field, value in message.ListFields() if field.name in ("gain", "location", "scale")}
    assert sent == pytest.approx(figures)
