"""What the recurrent layers do besides the formula of a step: lengths, directions, and the activations' parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.errors import EngineError, InvalidAttribute, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model

Array = NDArray[Any]

draw = np.random.default_rng(7)
X, W, R = draw.normal(size=(4, 3, 2)), draw.normal(size=(1, 5, 2)), draw.normal(size=(1, 5, 5))
LENGTHS = np.array([2, 4, 1], np.int32)


def run(op: str, *inputs: Array | None, **attributes: Any) -> list[Array]:
    """Returns all outputs of one node."""
    feeds = {f"x{index}": each for index, each in enumerate(inputs) if each is not None}
    names = tuple("" if each is None else f"x{index}" for index, each in enumerate(inputs))
    outputs = tuple("012"[: 3 if op == "LSTM" else 2])
    declared = tuple(Input(name, TensorType(each.dtype, each.shape)) for name, each in feeds.items())
    model = Model(Graph(declared, (), {}, (Node(op, names, outputs, attributes),), {n: n for n in outputs}))
    found = model.forward(feeds, {}, training=False).outputs
    return [found[name] for name in outputs]


def elman(f: Callable[[Array], Array], sequence: Array) -> Array:
    """Returns the hidden states of one sequence [T, I]."""
    h, states = np.zeros(5), []
    for step in sequence:
        h = f(step @ W[0].T + h @ R[0].T)
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_each_sequence_is_run_over_its_own_steps_only(direction: str) -> None:
    y, last = run("RNN", X, W, R, None, LENGTHS, direction=direction)
    turn = -1 if direction == "reverse" else 1
    for index, length in enumerate(LENGTHS):
        states = elman(np.tanh, X[:length, index][::turn])
        np.testing.assert_allclose(y[:length, 0, index], states[::turn])
        np.testing.assert_array_equal(y[length:, 0, index], 0.0)
        np.testing.assert_allclose(last[0, index], states[-1])


def test_clip_limits_what_the_activation_is_given() -> None:
    y, _ = run("RNN", X, W, R, clip=0.3)
    np.testing.assert_allclose(y[:, 0, 1], elman(lambda z: np.tanh(np.clip(z, -0.3, 0.3)), X[:, 1]))


def test_parameters_go_to_the_activations_that_take_them_in_order() -> None:
    weights = np.concatenate([W, W]), np.concatenate([R, R])
    y, _ = run(
        "RNN", X, *weights, direction="bidirectional", activations=["softsign", "ScaledTanh"], activation_alpha=[0.5]
    )
    np.testing.assert_allclose(y[:, 0, 2], elman(lambda z: z / (1 + np.abs(z)), X[:, 2]))
    np.testing.assert_allclose(y[:, 1, 2], elman(lambda z: 0.5 * np.tanh(z), X[::-1, 2])[::-1])


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_batch_first_layout_is_steps_first_with_axes_exchanged(op: str, gates: int) -> None:
    w, r = draw.normal(size=(2, gates * 2, 2)), draw.normal(size=(2, gates * 2, 2))
    h = draw.normal(size=(2, 3, 2))
    y, *states = run(op, X, w, r, None, LENGTHS, h, direction="bidirectional")
    turned = run(op, X.swapaxes(0, 1), w, r, None, LENGTHS, h.swapaxes(0, 1), direction="bidirectional", layout=1)
    np.testing.assert_array_equal(turned[0], y.transpose(2, 0, 1, 3))
    for found, state in zip(turned[1:], states, strict=True):
        np.testing.assert_array_equal(found, state.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"direction": "sideways"}, InvalidAttribute, "use one of forward"),
        ({"activations": ["Sine"]}, InvalidAttribute, "no activation 'Sine'"),
        ({"activations": ["Tanh", "Tanh"]}, InvalidAttribute, "give 1 for each of 1 directions"),
        ({"activation_alpha": [0.5]}, InvalidAttribute, "more than the activations"),
        ({"clip": 0.0}, InvalidAttribute, "must be positive"),
        ({"hidden_size": 4}, InvalidAttribute, "hidden_size is 4"),
        ({"layout": 2}, InvalidAttribute, "layout is 2"),
        ({"direction": "bidirectional"}, ShapeMismatch, "size of W on axis 0"),
    ],
)
def test_what_does_not_fit_is_named(attributes: dict[str, Any], error: type[EngineError], message: str) -> None:
    with pytest.raises(error, match=message):
        run("RNN", X, W, R, **attributes)
