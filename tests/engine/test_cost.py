"""What a computation takes is known before it takes it, and compiling ends when it takes too long."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine.cost import Cost
from backwire_server.engine.describe import describe
from backwire_server.engine.errors import TooCostly
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.plan_cache import PlanCache
from backwire_server.engine.stopping import NEVER, Allowance, Stop, Stopped

Array = NDArray[Any]

ROWS, WIDTH = 6, 4


class Refused(Exception):
    """It is too much."""


def network(depth: int = 1) -> Graph:
    """A chain of products with one matrix, whose loss is the sum of the last."""
    square = TensorType.of(np.float64, (WIDTH, WIDTH))
    nodes = [Node("MatMul", (f"h{i}", "w"), (f"h{i + 1}",)) for i in range(depth)]
    return Graph(
        inputs=(Input("h0", TensorType.of(np.float64, ("rows", WIDTH))),),
        parameters=(Parameter("w", square),),
        nodes=(*nodes, Node("ReduceSum", (f"h{depth}",), ("loss",), {"keepdims": 0})),
        loss="loss",
        outputs={"y": f"h{depth}"},
    )


VALUES: Mapping[str, Array] = {"w": np.eye(WIDTH)}
X: Mapping[str, Array] = {"h0": np.ones((ROWS, WIDTH))}


def costs_of(graph: Graph, *, training: bool = True) -> tuple[list[Cost], list[Cost]]:
    """What a pass and its usual gradient tell of, before they run."""
    model, forward, backward = Model(graph), list[Cost](), list[Cost]()
    made = model.forward(X, VALUES, training=training, admit=forward.append)
    if training:
        model.backward(made, admit=backward.append)
    return forward, backward


def test_a_pass_counts_with_its_usual_gradient() -> None:
    graph = network(3)
    told = describe(graph, ("w",), {"h0": TensorType.of(np.float64, (ROWS, WIDTH))}, VALUES)
    (forward,), (backward,) = costs_of(graph)
    assert forward.flops == told.forward_flops + told.backward_flops
    assert backward.flops == 0, "it counted with the pass"
    assert forward.nbytes + backward.nbytes >= told.peak_bytes - X["h0"].nbytes - 16
    (alone,), _ = costs_of(graph, training=False)
    assert alone.flops == told.forward_flops == 3 * 2 * ROWS * WIDTH * WIDTH + 1


def test_another_gradient_counts_by_itself() -> None:
    model, told = Model(network()), list[Cost]()
    made = model.forward(X, VALUES, training=True)
    model.backward(made, {"y": np.ones((ROWS, WIDTH))}, wrt=["h0"], admit=told.append)
    assert told[0].flops > 0


def test_what_is_refused_takes_no_memory_and_the_next_is_as_ever() -> None:
    model = Model(network())
    expected = Model(network()).forward(X, VALUES, training=False).loss

    def refuse(_: Cost) -> None:
        raise Refused

    for _ in range(2):
        with pytest.raises(Refused):
            model.forward(X, VALUES, training=True, admit=refuse)
    assert not model._warm, "no frame was made"
    made = model.forward(X, VALUES, training=True)
    with pytest.raises(Refused):
        model.backward(made, admit=refuse)
    assert made.loss == expected
    assert model.backward(made).parameters["w"].shape == (WIDTH, WIDTH)


class TestAllowance:
    def test_compiling_ends_when_the_time_is_up(self) -> None:
        now = iter(range(10_000))
        allowance = Allowance(5.0, NEVER, lambda: float(next(now)))
        with pytest.raises(TooCostly) as caught:
            PlanCache(network(50), allowance)
        assert caught.value.quota == "max_compile_time"

    def test_a_model_that_may_not_take_any_time_compiles_nothing(self) -> None:
        model = Model(network(), compile_seconds=-1.0)
        with pytest.raises(TooCostly):
            model.forward(X, VALUES, training=False)
        model.compile_seconds = None
        made = model.forward(X, VALUES, training=True)
        model.compile_seconds = -1.0
        with pytest.raises(TooCostly):
            model.backward(made)
        model.compile_seconds = None
        assert model.backward(made).parameters

    def test_stops_for_the_other_too(self) -> None:
        stop = Stop()
        allowance = Allowance(1e9, stop)
        assert not allowance.wanted
        stop.wanted = True
        assert allowance.wanted
        with pytest.raises(Stopped):
            allowance.heed()

    def test_time_that_was_given_to_others_does_not_count(self) -> None:
        now = [0.0]

        class Giving(Stop):
            def heed(self) -> None:
                now[0] += 100.0
                self.wanted = False

        giving = Giving()
        allowance = Allowance(1.0, giving, lambda: now[0])
        giving.wanted = True
        allowance.heed()
        assert not allowance.wanted
        now[0] += 2.0
        with pytest.raises(TooCostly):
            allowance.heed()
