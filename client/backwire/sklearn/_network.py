"""The networks of estimators: from features to units, and the losses on top, each example with its weight."""

from collections.abc import Callable, Mapping, Sequence

from backwire._arrays import DType
from backwire._builder import _public as build
from backwire._builder._graph import Graph, graph
from backwire._builder._value import Value
from backwire._errors import InvalidRequestError, ShapeError

Network = Callable[[Value], Value]
"""Makes units [batch, any number] of features [batch, features]."""

FEATURES, TARGET, WEIGHT = "features", "target", "weight"
PREDICTION, PROBABILITY, LOG_PROBABILITY = "prediction", "probability", "log_probability"

ACTIVATIONS: Mapping[str, Network] = {
    "identity": lambda x: x,
    "relu": build.relu,
    "tanh": build.tanh,
    "logistic": build.sigmoid,
    "gelu": build.gelu,
    "silu": build.silu,
}


def perceptron(sizes: Sequence[int], activation: str) -> Network:
    """Returns the network of fully connected layers of these sizes; raises InvalidRequestError for an activation."""
    if activation not in ACTIVATIONS:
        raise InvalidRequestError(
            f"activation={activation!r} is unknown; use one of {', '.join(ACTIVATIONS)}", field="activation"
        )

    def network(x: Value) -> Value:
        for number, units in enumerate(sizes, 1):
            x = ACTIVATIONS[activation](build.dense(x, units, name=f"hidden{number}"))
        return x

    return network


def classifier(network: Network, features: int, classes: int, dtype: DType) -> Graph:
    """Returns the graph of cross-entropy, whose outputs are the probabilities of classes and their logarithms."""
    logits = _head(network, features, classes, dtype)
    target = build.input(TARGET, ("batch",), "int64")
    return graph(
        loss=_weighted(build.softmax_cross_entropy(logits, target, reduction="none")),
        outputs={PROBABILITY: build.softmax(logits), LOG_PROBABILITY: build.log_softmax(logits)},
    )


def regressor(network: Network, features: int, outputs: int, dtype: DType) -> Graph:
    """Returns the graph of half the squared error, whose output is the prediction [batch, outputs]."""
    prediction = _head(network, features, outputs, dtype)
    target = build.input(TARGET, ("batch", outputs), dtype)
    errors = build.squared_error(prediction, target, half=True, reduction="none")
    return graph(loss=_weighted(build.mean(errors, axis=1)), outputs={PREDICTION: prediction})


def _head(network: Network, features: int, units: int, dtype: DType) -> Value:
    made = network(build.input(FEATURES, ("batch", features), dtype))
    if made.shape is None or len(made.shape) != 2 or not isinstance(made.shape[1], int):
        raise ShapeError(f"network returned {made!r}, not [batch, units]; flatten it with bw.reshape(x, (0, -1))")
    return build.dense(made, units, name="output")


def _weighted(losses: Value) -> Value:
    return build.mean(losses * build.input(WEIGHT, ("batch",), losses.dtype))
