"""The check of gradients finds right ones right and wrong ones wrong, and says what it computed with."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backwire_server.engine import check
from backwire_server.engine.check import Sampling, check_gradients
from backwire_server.engine.errors import DtypeMismatch, MissingInput, TooCostly
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.registry import OPS

ALL = Sampling(("w", "b"), 64, 0)
DRAW = np.random.default_rng(4)


def network(dtype: str = "float32", *nodes: Node) -> Graph:
    middle = nodes or (Node("Tanh", ("z",), ("h",)),)
    return Graph(
        inputs=(Input("x", TensorType.of(dtype, ("batch", 3))),),
        parameters=(Parameter("w", TensorType.of(dtype, (3, 4))), Parameter("b", TensorType.of(dtype, (4,)))),
        constants={"ratio": np.array(0.5, "float32"), "training": np.array(True)},
        nodes=(
            Node("Gemm", ("x", "w", "b"), ("z",)),
            *middle,
            Node("ReduceSumSquare", ("h",), ("l",), {"keepdims": 0}),
        ),
        loss="l",
    )


def values(dtype: str = "float32") -> tuple[dict[str, Any], dict[str, Any]]:
    x, w, b = DRAW.normal(size=(5, 3)), DRAW.normal(size=(3, 4)), DRAW.normal(size=4)
    return {"x": x.astype(dtype)}, {"w": w.astype(dtype), "b": b.astype(dtype)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_gradients_are_found_right_in_float64(dtype: str) -> None:
    inputs, parameters = values(dtype)
    before = {name: array.copy() for name, array in parameters.items()}
    found = check_gradients(network(dtype), inputs, parameters, ALL, key=(0, 0))
    assert found.dtype == np.float64
    assert [(each.name, each.checked) for each in found.parameters] == [("w", 12), ("b", 4)]
    assert all(each.error < 1e-6 for each in found.parameters)
    for name, array in before.items():
        np.testing.assert_array_equal(parameters[name], array)


def test_a_wrong_gradient_is_found_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = OPS["Tanh"].gradient
    assert rule is not None
    monkeypatch.setattr(OPS["Tanh"], "gradient", lambda g, y, x: rule(g, y, x) * 1.01)
    inputs, parameters = values()
    found = check_gradients(network(), inputs, parameters, ALL, key=(0, 0))
    worst = found.parameters[0]
    assert worst.error > 1e-3
    assert worst.gradient == pytest.approx(1.01 * worst.difference, rel=1e-3)
    assert len(worst.index) == 2


def test_dropout_drops_the_same_in_every_pass() -> None:
    inputs, parameters = values()
    graph = network("float32", Node("Dropout", ("z", "ratio", "training"), ("h",)))
    found = check_gradients(graph, inputs, parameters, ALL, key=(7, 3))
    assert all(each.error < 1e-6 for each in found.parameters)


def test_a_cast_to_float32_is_widened_too() -> None:
    inputs, parameters = values()
    graph = network("float32", Node("Cast", ("z",), ("h",), {"to": 1}))
    found = check_gradients(graph, inputs, parameters, ALL, key=(0, 0))
    assert found.dtype == np.float64
    assert all(each.error < 1e-6 for each in found.parameters)


def test_a_graph_that_cannot_be_widened_is_checked_in_float32() -> None:
    inputs, parameters = values()
    graph = network("float32", Node("BitCast", ("z",), ("i",), {"to": 6}), Node("Tanh", ("z",), ("h",)))
    found = check_gradients(graph, inputs, parameters, ALL, key=(0, 0))
    assert found.dtype == np.float32
    assert all(each.error < 0.05 for each in found.parameters)


def test_large_parameters_are_sampled_by_the_seed() -> None:
    drawn = Sampling(("w",), 3, 1).places("w", 1000)
    assert len(set(drawn.tolist())) == 3
    np.testing.assert_array_equal(drawn, Sampling(("w",), 3, 1).places("w", 1000))
    assert drawn.tolist() != Sampling(("w",), 3, 2).places("w", 1000).tolist()
    inputs, parameters = values()
    found = check_gradients(network(), inputs, parameters, Sampling(("w",), 3, 1), key=(0, 0))
    assert [(each.name, each.checked) for each in found.parameters] == [("w", 3)]


def test_a_parameter_that_the_loss_does_not_depend_on_has_no_error() -> None:
    inputs, parameters = values()
    graph = network()
    graph = dataclasses.replace(graph, parameters=(*graph.parameters, Parameter("u", TensorType.of("float32", (0,)))))
    found = check_gradients(graph, inputs, {**parameters, "u": np.zeros(0, "f4")}, Sampling(("u",), 9, 0), key=(0, 0))
    assert (found.parameters[0].checked, found.parameters[0].error) == (0, 0.0)


def test_what_is_not_finite_is_an_infinite_error() -> None:
    inputs, parameters = values()
    parameters["b"][1] = np.nan
    found = check_gradients(network(), inputs, parameters, ALL, key=(0, 0))
    assert found.parameters[1].error == np.inf


def test_inputs_are_held_to_what_the_graph_declares() -> None:
    inputs, parameters = values()
    with pytest.raises(DtypeMismatch):
        check_gradients(network(), {"x": inputs["x"].astype("f8")}, parameters, ALL, key=(0, 0))
    with pytest.raises(MissingInput):
        check_gradients(network(), {}, parameters, ALL, key=(0, 0))


def test_the_caller_can_end_the_check_between_evaluations() -> None:
    inputs, parameters = values()
    calls: list[None] = []

    def ready() -> None:
        calls.append(None)
        if len(calls) == 5:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        check_gradients(network(), inputs, parameters, ALL, key=(0, 0), ready=ready)


@pytest.mark.parametrize(("seconds", "enough"), [(None, True), (11.0, True), (9.0, False)])
def test_a_check_that_cannot_end_in_time_is_refused_early(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, *, enough: bool
) -> None:
    monkeypatch.setattr(check, "PROBED", 4)
    inputs, parameters = values()
    looked: list[None] = []
    monkeypatch.setattr(check, "time", SimpleNamespace(perf_counter=lambda: len(looked)))  # a second for each element

    def remaining() -> float | None:
        looked.append(None)
        return seconds

    given: dict[str, Any] = {"key": (0, 0), "remaining": remaining}
    if enough:
        check_gradients(network(), inputs, parameters, ALL, **given)
        return
    with pytest.raises(TooCostly, match=r"takes about \d+ s more, and the call has 9 s left; check fewer elements"):
        check_gradients(network(), inputs, parameters, ALL, **given)
    assert len(looked) == 5
