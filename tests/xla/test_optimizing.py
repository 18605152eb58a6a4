"""An optimizer that is traced makes the steps that it makes with numpy."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

import jax

from backwire_server import optim
from backwire_server.optim import FlatLayout, Optimizer, ParameterGroup
from backwire_server.xla import state
from backwire_server.xla.optimizing import TracedOptimizer, square_of
from backwire_server.xla.registry import numerics

LAYOUT = FlatLayout({"a/weight": ("f8", (3, 2)), "a/bias": ("f8", (2,)), "b/weight": ("f8", (2, 2))})
STEPS = 4
RULES: list[optim.Rule] = [
    optim.Sgd(),
    optim.Sgd(momentum=0.9, dampening=0.1, weight_decay=0.2),
    optim.Sgd(momentum=0.9, nesterov=True),
    optim.Lion(weight_decay=0.1),
    optim.Adam(),
    optim.Adam(amsgrad=True, weight_decay=0.1),
    optim.AdamW(),
    optim.AdamW(amsgrad=True),
    optim.RMSprop(),
    optim.RMSprop(centered=True, momentum=0.5, weight_decay=0.1),
    optim.Adagrad(learning_rate_decay=0.1, initial_accumulator=0.5),
]
SETTINGS: list[dict[str, Any]] = [
    {"clipping": optim.Clipping(value=0.5)},
    {"clipping": optim.Clipping(value=2.0, norm=1.0, global_norm=1.2)},
    {"average_decay": 0.9},
    {
        "groups": (
            ParameterGroup("*bias", rule=optim.Sgd(momentum=0.5), learning_rate_factor=0.5),
            ParameterGroup("b/*", frozen=True),
        )
    },
    {"groups": (ParameterGroup("a/*", weight_decay=0.3),), "schedule": optim.ExponentialSchedule(0.5)},
]


@pytest.fixture(params=["flat", "by tensor"])
def lying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has small parameters lie on the device as they do, or as large ones do."""
    if request.param == "by tensor":
        monkeypatch.setattr(state, "FLAT_BYTES", 0)


def check(optimizer: Optimizer) -> None:
    draw = np.random.default_rng(2)
    values = {name: draw.normal(size=slot.shape) for name, slot in LAYOUT.slots.items()}
    vectors, kept = LAYOUT.pack(values), optim.init(optimizer, LAYOUT)
    traced = TracedOptimizer.of(optimizer, LAYOUT)
    assert traced is not None
    parameters: Any = traced.arrays(LAYOUT.pack(values))
    memory: Any = traced.spread(optim.init(optimizer, LAYOUT))
    with numerics():
        apply = jax.jit(traced.apply)
        for step in range(1, STEPS + 1):
            gradients = {name: draw.normal(size=slot.shape) for name, slot in LAYOUT.slots.items()}
            optim.apply(optimizer, LAYOUT, vectors, LAYOUT.pack(gradients), kept, step=step)
            parameters, memory = apply(
                parameters, traced.joined(gradients), memory, traced.figures(step, optimizer.rate(step))
            )
    for dtype, vector in traced.packed(parameters).items():
        np.testing.assert_allclose(vector, vectors[dtype], rtol=1e-12)
        for name, found in traced.gathered(memory)[dtype].items():
            np.testing.assert_allclose(found, kept[dtype][name], rtol=1e-12)


@pytest.mark.usefixtures("lying")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rules_are_those_of_numpy(rule: optim.Rule) -> None:
    check(Optimizer(0.05, rule))


@pytest.mark.usefixtures("lying")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_clipping_groups_and_averages_are_those_of_numpy(settings: dict[str, Any]) -> None:
    check(Optimizer(0.05, optim.Adam(), **settings))


def test_a_rule_that_only_numpy_knows_is_told() -> None:
    assert TracedOptimizer.of(Optimizer(0.1, optim.Muon()), LAYOUT) is None


@pytest.mark.parametrize(
    ("settings", "limit", "arrays"),
    [
        ({}, state.FLAT_BYTES, 1),
        ({}, 0, 3),
        ({"groups": (ParameterGroup("a/bias", frozen=True),)}, state.FLAT_BYTES, 3),
        ({"groups": (ParameterGroup("b/*", weight_decay=0.3),)}, state.FLAT_BYTES, 2),
        ({"clipping": optim.Clipping(global_norm=1.0)}, state.FLAT_BYTES, 1),
        ({"clipping": optim.Clipping(norm=1.0)}, state.FLAT_BYTES, 3),
    ],
    ids=str,
)
def test_small_parameters_that_are_treated_alike_are_one_array(
    settings: dict[str, Any], limit: int, arrays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "FLAT_BYTES", limit)
    traced = TracedOptimizer.of(Optimizer(0.1, optim.Adam(), **settings), LAYOUT)
    assert traced is not None
    assert len(traced.arrays(LAYOUT.zeros())) == arrays


def test_what_is_traced_does_not_depend_on_the_learning_rate() -> None:
    made = (Optimizer(0.1, optim.Adam()), Optimizer(0.2, optim.Adam()), Optimizer(0.1, optim.Adam(beta1=0.5)))
    keys = [traced.key for each in made if (traced := TracedOptimizer.of(each, LAYOUT)) is not None]
    assert len(keys) == len(made)
    assert keys[0] == keys[1] != keys[2]


def test_the_norm_of_gradients_takes_one_look_at_them_beside_a_rule_that_squares_them_too() -> None:
    left, right, memory = np.zeros((64, 256), "f4"), np.zeros((64, 256), "f4"), np.zeros((256, 256), "f4")

    def step(left: Any, right: Any, memory: Any, square: Any) -> Any:
        slope = left.T @ right
        return square([slope]), memory * 0.9 + slope * slope * 0.1

    def accessed(square: Any) -> float:
        compiled = jax.jit(step, static_argnums=3).lower(left, right, memory, square).compile()
        return float(compiled.cost_analysis()["bytes accessed"])

    with numerics():
        assert accessed(square_of) - accessed(lambda _: 0.0) < 1.5 * memory.nbytes
