"""A pass in training updates frozen parameters."""

from typing import Any

import numpy as np
import pytest

from backwire_server.engine.errors import DtypeMismatch, EngineError, GraphError, ShapeMismatch
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model

X = Input("x", TensorType.of("float64", ("batch", 3)))


def averaging(**changes: Any) -> Graph:
    """A graph that keeps a moving average of its input's mean: m' = 0.75 m + 0.25 mean(x)."""
    parts: dict[str, Any] = {
        "inputs": (X,),
        "parameters": (Parameter("m", TensorType.of("float64", (1, 3)), frozen=True),),
        "constants": {"axes": np.array([0]), "old": np.array(0.75), "new": np.array(0.25)},
        "nodes": (
            Node("ReduceMean", ("x", "axes"), ("mean",)),
            Node("Mul", ("m", "old"), ("kept",)),
            Node("Mul", ("mean", "new"), ("added",)),
            Node("Add", ("kept", "added"), ("next",)),
            Node("Sub", ("x", "m"), ("y",)),
        ),
        "outputs": {"y": "y"},
        "updates": {"m": "next"},
    }
    return Graph(**{**parts, **changes})


def test_a_pass_in_training_updates_state_and_eval_does_not() -> None:
    draw = np.random.default_rng(0)
    model, x, m = Model(averaging()), draw.normal(size=(4, 3)), draw.normal(size=(1, 3))
    forward = model.forward({"x": x}, {"m": m}, training=True)
    np.testing.assert_allclose(forward.updates["m"], 0.75 * m + 0.25 * x.mean(0, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(forward.outputs["y"], x - m)
    assert model.forward({"x": x}, {"m": m}, training=False).updates == {}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"updates": {"x": "next"}}, GraphError, "'x' is to be updated, but is no frozen parameter"),
        ({"updates": {"m": "nowhere"}}, GraphError, "'nowhere', which nothing defines"),
        ({"updates": {"m": "axes"}}, DtypeMismatch, r"float64\[1, 3\], but its update is int64"),
        ({"updates": {"m": "old"}}, ShapeMismatch, r"float64\[1, 3\], but its update is float64\[\]"),
        ({"parameters": (Parameter("m", TensorType.of("float64", (1, 3))),)}, GraphError, "no frozen parameter"),
    ],
)
def test_a_wrong_update_is_named(changes: dict, error: type[EngineError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Model(averaging(**changes))
    assert caught.value.field == "graph.updates"
