"""Sessions of equal graphs share the check and the plans, within bounds, and nothing else."""

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest

from backwire_server.engine.errors import GraphError
from backwire_server.engine.graph import Graph, Input, Node, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.plan import Plan
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.models import Models, model_of

THREADS = 4
X = Input("x", TensorType.of("float32", ("b",)))


def plus(number: float, size: int = 1) -> Graph:
    nodes = (Node("Add", ("x", "c"), ("y",)),)
    return Graph((X,), constants={"c": np.full(size, number, "f4")}, nodes=nodes, outputs={"y": "y"})


def shared(model: Model) -> weakref.ref[object]:
    return weakref.ref(model._shared)


def result(model: Model) -> float:
    return float(model.forward({"x": np.ones(1, "f4")}, {}, training=False).outputs["y"][0])


def test_models_of_equal_graphs_share_and_those_of_others_do_not() -> None:
    models = Models()
    first, second, other = models.model(plus(1)), models.model(plus(1)), models.model(plus(2))
    assert first._shared is second._shared
    assert first._shared is not other._shared
    assert [result(each) for each in (first, second, other)] == [2, 2, 3]


def test_a_graph_is_known_again_when_its_last_model_has_gone() -> None:
    models = Models()
    known = shared(models.model(plus(1)))
    gc.collect()
    assert known() is models.model(plus(1))._shared


def test_of_many_graphs_the_last_are_kept() -> None:
    models = Models(kept_graphs=2)
    first, second, third = (shared(models.model(plus(number))) for number in (1, 2, 3))
    gc.collect()
    assert first() is None
    assert second() is models.model(plus(2))._shared
    models.model(plus(4))
    gc.collect()
    assert (second() is None, third() is None) == (False, True)


def test_graphs_are_kept_up_to_so_many_bytes() -> None:
    models = Models(kept_bytes=20_000)
    found = [shared(models.model(plus(number, size=1_000))) for number in range(8)]
    gc.collect()
    kept = [each() is not None for each in found]
    assert 0 < sum(kept) <= 20_000 // 4_000
    assert kept == sorted(kept)


def test_graphs_are_kept_up_to_so_many_functions_that_were_compiled_of_them() -> None:
    models = Models(kept_compiled=4)

    def compiled(number: float) -> weakref.ref[object]:
        """As of an executor that compiles: a pass of three shapes."""
        model = models.model(plus(number))
        for size in (1, 2, 3):
            model.forward({"x": np.ones(size, "f4")}, {}, training=False)
        for plan in model._shared._plans.values():
            assert isinstance(plan, Plan)
            plan.program.compiled["step"] = object()
        return shared(model)

    first, second = compiled(1), compiled(2)
    models.model(plus(3))
    gc.collect()
    assert first() is None
    assert second() is models.model(plus(2))._shared


def test_what_grows_too_large_goes_and_takes_no_other_with_it() -> None:
    models = Models(kept_bytes=100_000)
    small, large = models.model(plus(1)), models.model(plus(2))
    for size in range(1, 60):
        large.forward({"x": np.ones(size, "f4")}, {}, training=False)
    known, grown = shared(small), shared(large)
    del small
    models.model(plus(3))
    assert models.model(plus(2))._shared is grown()
    del large
    gc.collect()
    assert known() is not None
    assert grown() is None


def test_constants_that_are_too_large_are_not_shared() -> None:
    models = Models(kept_bytes=1_000)
    first, second = models.model(plus(1, size=1_000)), models.model(plus(1, size=1_000))
    assert first._shared is not second._shared
    assert result(first) == result(second) == 2


def test_a_graph_that_is_wrong_is_refused_each_time() -> None:
    graph = Graph((X,), nodes=(Node("Add", ("x", "x"), ("y",)),), loss="y")
    models = Models()
    models.model(replace(graph, loss=None, outputs={"y": "y"}))
    wide = replace(graph, inputs=(Input("x", TensorType.of("float32", (2,))),))
    for _ in range(2):
        with pytest.raises(GraphError, match="must be one floating-point element"):
            models.model(wide)


def test_models_that_are_made_at_once_share() -> None:
    for number in range(20):
        models, together = Models(), Barrier(THREADS)

        def make(_: int, number: int = number, models: Models = models, together: Barrier = together) -> Model:
            together.wait()
            return models.model(plus(number))

        with ThreadPoolExecutor(THREADS) as pool:
            made = list(pool.map(make, range(THREADS)))
        assert len({id(model._shared) for model in made}) == 1
        assert [result(model) for model in made] == [number + 1] * THREADS


def test_sessions_of_one_graph_train_at_once_as_each_would_alone(
    network: Callable[..., SessionSpec], make_session: Callable[..., Session]
) -> None:
    def train(session: Session) -> list[float]:
        draw = np.random.default_rng(0)
        batches = [draw.normal(size=(1 + number % 3, 4)).astype("f4") for number in range(20)]
        return [session.train_step(UNBOUNDED, TrainCall({"x": x}, ("z2",))).loss for x in batches]

    seeds = range(THREADS)
    assert model_of(network().graph)._shared is model_of(network(seed=9).graph)._shared
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(train, [make_session(network(seed=seed)) for seed in seeds]))
    assert found == [train(make_session(network(seed=seed))) for seed in seeds]
    assert len({tuple(losses) for losses in found}) == THREADS
