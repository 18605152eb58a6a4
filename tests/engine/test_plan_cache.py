"""Models that share the plans of their graph compute what each would alone, and keep nothing of each other's values."""

import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server.engine import model as model_module
from backwire_server.engine.errors import EngineError
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.engine.model import Model
from backwire_server.engine.plan import Plan
from backwire_server.engine.plan_cache import PlanCache

Array = NDArray[Any]
THREADS = 4

X = Input("x", TensorType.of("float32", ("b", 3)))
NETWORK = Graph(
    inputs=(X,),
    parameters=(Parameter("w", TensorType.of("float32", (3, 4))), Parameter("v", TensorType.of("float32", (4, 2)))),
    constants={"half": np.array(0.5, "f4"), "training": np.array(True)},
    nodes=(
        Node("MatMul", ("x", "w"), ("z",)),
        Node("Tanh", ("z",), ("h",)),
        Node("Dropout", ("h", "half", "training"), ("d",)),
        Node("MatMul", ("d", "v"), ("y",)),
        Node("Mul", ("y", "y"), ("square",)),
        Node("ReduceMean", ("square",), ("l",), {"keepdims": 0}),
    ),
    outputs={"y": "y", "h": "h"},
    loss="l",
)
SIZES = Input("sizes", TensorType.of("int64", (2,)))
SHAPED = Graph(inputs=(X, SIZES), nodes=(Node("Reshape", ("x", "sizes"), ("y",)),), outputs={"y": "y"})


def trained(model: Model, seed: int) -> list[bytes]:
    """Returns the bits of everything that comes of many passes, of several sizes and differentiated in several ways."""
    draw, found = np.random.default_rng(seed), []
    values = {p.name: draw.normal(size=p.type.shape).astype("f4") for p in NETWORK.parameters}
    for number in range(12):
        inputs = {"x": draw.normal(size=(1 + number % 3, 3)).astype("f4")}
        made = model.forward(inputs, values, training=True, key=(seed, number))
        wrt = ("x",) if number % 2 else ()
        gradients = model.backward(made, wrt=wrt)
        seeded = model.backward(made, {"h": np.ones_like(made.outputs["h"])})
        arrays = [*made.outputs.values(), *gradients.inputs.values(), *seeded.parameters.values()]
        for name, gradient in gradients.parameters.items():
            values[name] = values[name] - np.float32(0.1) * gradient
        found += [array.tobytes() for array in (*arrays, *values.values())]
    return found


def shaped(model: Model, *sizes: int) -> tuple[int, ...]:
    x = np.zeros((2, 3), "f4")
    return model.forward({"x": x, "sizes": np.array(sizes)}, {}, training=False).outputs["y"].shape


def test_models_that_share_plans_compute_the_bits_that_each_does_alone() -> None:
    for _ in range(5):
        shared, together = PlanCache(NETWORK), Barrier(THREADS)

        def run(seed: int, shared: PlanCache = shared, together: Barrier = together) -> list[bytes]:
            model = Model(shared)
            together.wait()
            return trained(model, seed)

        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(run, range(THREADS)))
        assert found == [trained(Model(NETWORK), seed) for seed in range(THREADS)]


def test_what_one_model_planned_another_finds() -> None:
    shared = PlanCache(NETWORK)
    values = {p.name: np.ones(p.type.shape, "f4") for p in NETWORK.parameters}
    plans = [Model(shared).forward({"x": np.ones((2, 3), "f4")}, values, training=True).plan for _ in range(2)]
    assert plans[0] is plans[1]


def test_a_plan_that_knows_elements_is_not_shared() -> None:
    shared = PlanCache(SHAPED)
    first, second = Model(shared), Model(shared)
    assert shaped(first, 3, 2) == (3, 2)
    assert shaped(first, 6, 1) == (6, 1)
    assert shaped(second, 3, 2) == (3, 2)
    assert len(first._plans) == 2
    assert len(second._plans) == 1
    assert not {*first._plans.values()} & {*second._plans.values()}
    assert not [each for each in shared._plans.values() if isinstance(each, Plan)]


def test_a_plan_that_knows_elements_does_not_keep_their_array() -> None:
    model, sizes = Model(SHAPED), np.array([3, 2])
    model.forward({"x": np.zeros((2, 3), "f4"), "sizes": sizes}, {}, training=False)
    alive = weakref.ref(sizes)
    del sizes
    model.trim()
    assert alive() is None


@pytest.mark.parametrize(("most_bytes", "kept"), [(6 * 16, 6), (0, model_module.WARM_PLANS)])
def test_plans_that_know_much_are_few(monkeypatch: pytest.MonkeyPatch, most_bytes: int, kept: int) -> None:
    model = Model(SHAPED)
    monkeypatch.setattr(model_module, "SPECIAL_BYTES", most_bytes)
    for count, shape in enumerate([(1, 6), (2, 3), (3, 2), (6, 1), (-1, 6), (-1, 3), (-1, 2), (-1, 1)], 1):
        assert np.prod(shaped(model, *shape)) == 6
        assert len(model._plans) == min(count, kept)


def test_many_shapes_and_many_calls_do_not_fill_memory() -> None:
    shared = PlanCache(NETWORK)
    values = {p.name: np.ones(p.type.shape, "f4") for p in NETWORK.parameters}
    model = Model(shared)
    for size in range(1, 100):
        model.forward({"x": np.ones((size, 3), "f4")}, values, training=False)
    assert len(shared._plans) == 64
    assert len(shared._admitted) <= 64


def test_names_that_come_many_times_are_not_remembered() -> None:
    shared = PlanCache(NETWORK)
    values: Mapping[str, Array] = {p.name: np.ones(p.type.shape, "f4") for p in NETWORK.parameters}
    model, inputs = Model(shared), {"x": np.ones((2, 3), "f4")}
    made = model.forward(inputs, values, training=True, outputs=["y"] * 1_000)
    assert list(made.outputs) == ["y"]
    assert not shared._admitted
    assert list(model.backward(made, wrt=["x"] * 1_000).inputs) == ["x"]
    assert all(len(wrt) == 3 for _, wrt in made.plan._backward)  # type: ignore[misc,has-type]


def test_whoever_differentiates_in_many_ways_does_not_drop_the_usual_one() -> None:
    inputs = tuple(Input(f"x{i}", TensorType.of("float64", ())) for i in range(6))
    w = Parameter("w", TensorType.of("float64", ()))
    names = ("w", *(item.name for item in inputs))
    model = Model(Graph(inputs, (w,), nodes=(Node("Sum", names, ("y",)),), outputs={"y": "y"}, loss="y"))
    made = model.forward({item.name: np.ones(()) for item in inputs}, {"w": np.ones(())}, training=True)
    assert made.plan.usual is not None
    usual = made.plan.backward(*made.plan.usual)
    for bits in range(64):
        model.backward(made, wrt=[item.name for place, item in enumerate(inputs) if bits >> place & 1])
    assert made.plan.backward(*made.plan.usual) is usual
    assert len(made.plan._backward) <= 16


def test_a_plan_says_what_it_holds() -> None:
    shared = PlanCache(NETWORK)
    values = {p.name: np.ones(p.type.shape, "f4") for p in NETWORK.parameters}
    model = Model(shared)
    made = model.forward({"x": np.ones((2, 3), "f4")}, values, training=True)
    before = shared.nbytes
    assert before > len(NETWORK.nodes) * 1_000
    model.backward(made)
    assert shared.nbytes > before


def test_a_graph_that_is_wrong_has_no_plans() -> None:
    w = Parameter("w", TensorType.of("float32", (3, 4)))
    with pytest.raises(EngineError, match="MatMul node 'y'"):
        PlanCache(Graph(parameters=(w,), nodes=(Node("MatMul", ("w", "w"), ("y",)),)))


def test_a_call_that_is_wrong_is_refused_each_time() -> None:
    shared = PlanCache(NETWORK)
    values = {p.name: np.ones(p.type.shape, "f4") for p in NETWORK.parameters}
    for _ in range(2):
        with pytest.raises(EngineError, match=r"input 'x' is float32\[b, 3\], but was given shape \[2, 4\]"):
            Model(shared).forward({"x": np.ones((2, 4), "f4")}, values, training=True)
        with pytest.raises(EngineError, match="the graph has no output 'z'"):
            Model(shared).forward({"x": np.ones((2, 3), "f4")}, values, training=True, outputs=["z"])
