"""What a device compiles for a shape goes by the elements that shapes depend on, and is freed with its plan."""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.sessions.training_calls import perform

pytest.importorskip("jax")

from backwire_server import optim
from backwire_server.engine import model, plan_cache
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.sessions.calls import ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.xla.stepping import CompiledStep

Make = Callable[..., Session]


def test_steps_go_by_elements_that_shapes_depend_on_however_many_batches_there_were(
    make_session: Make, dot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = TensorType.of("float32", ("n",)), TensorType.of("float32", ())
    nodes = (
        Node("Mul", ("x", "w"), ("y",)),
        Node("Reshape", ("y", "shape"), ("table",)),
        Node("ReduceMax", ("table", "axes"), ("most",), {"keepdims": 0}),
        Node("ReduceSum", ("most",), ("loss",), {"keepdims": 0}),
    )
    graph = Graph(
        (Input("x", x), Input("shape", TensorType.of("int64", (2,)))),
        (Parameter("w", w),),
        {"axes": np.array([0])},
        nodes,
        loss="loss",
    )
    values = {"w": np.array(1.0, np.float32)}
    session = make_session(replace(dot(), graph=graph, sources=values, executor=Executor.JAX))
    monkeypatch.setattr(model, "CACHED_PLANS", 1)
    options = StepOptions(learning_rate=0.0)

    def loss_of(count: int, shape: list[int]) -> float:
        given = {"x": np.arange(count, dtype=np.float32), "shape": np.array(shape)}
        return float(perform(session, TrainCall(given, options=options)).loss)

    assert loss_of(6, [2, 3]) == 12.0
    with_more = {"x": np.arange(8, dtype=np.float32), "shape": np.array([2, 4])}
    perform(session, ForwardCall(with_more))
    assert loss_of(6, [3, 2]) == 9.0


@pytest.mark.parametrize("grouped", [False, True])
def test_a_shape_may_depend_on_elements_of_a_parameter(make_session: Make, dot: Any, grouped: bool) -> None:
    kinds = {name: TensorType.of("float32", shape) for name, shape in {"x": (2,), "scales": (1,), "w": (4,)}.items()}
    nodes = (
        Node("Resize", ("x", "", "scales"), ("y",)),
        Node("Mul", ("y", "w"), ("z",)),
        Node("ReduceSum", ("z",), ("loss",), {"keepdims": 0}),
    )
    parameters = tuple(Parameter(name, kinds[name]) for name in ("scales", "w"))
    graph = Graph((Input("x", kinds["x"]),), parameters, {}, nodes, loss="loss")
    values = {"scales": np.array([2.0], np.float32), "w": np.ones(4, np.float32)}
    optimizer = optim.Optimizer(0.5, optim.Sgd())
    spec = replace(dot(), graph=graph, sources=values, optimizer=optimizer, executor=Executor.JAX, grouped=grouped)
    session = make_session(spec)
    call = TrainCall({"x": np.array([1, 3], np.float32)})
    assert [perform(session, call).loss for _ in range(3)] == [8.0, -2.0, -12.0]


def test_what_was_compiled_for_a_shape_is_freed_as_soon_as_its_plan_goes(
    make_session: Make, network: Callable[..., SessionSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (model, plan_cache):
        monkeypatch.setattr(module, "CACHED_PLANS", 2)
    monkeypatch.setattr(model, "WARM_PLANS", 1)
    spec = network()
    graph = replace(spec.graph, outputs={"of_this_test_alone": "z2"})
    session = make_session(replace(spec, graph=graph, executor=Executor.JAX))

    def compiled_after(rows: int) -> int:
        perform(session, TrainCall({"x": np.ones((rows, 4), np.float32)}))
        return sum(type(each) is CompiledStep for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        counts = [compiled_after(rows) for rows in range(1, 4)]
    finally:
        gc.enable()
    assert [each - counts[0] for each in counts] == [0, 1, 1]
