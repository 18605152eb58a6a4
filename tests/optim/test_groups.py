"""Parameter groups: chosen by name, the first that matches counts."""

from typing import Any

import numpy as np
import pytest

from backwire_server import optim

LAYOUT = optim.FlatLayout(
    {
        "encoder.0.weight": ("float32", (4, 3)),
        "encoder.0.bias": ("float32", (4,)),
        "encoder.1.weight": ("float32", (2, 4)),
        "encoder.1.bias": ("float32", (2,)),
        "head": ("float64", (2, 2)),
    }
)


def train(groups: tuple[optim.ParameterGroup, ...], rule: optim.Rule | None = None, steps: int = 3) -> dict[str, Any]:
    """How far each parameter moves from 1."""
    optimizer = optim.Optimizer(0.1, rule or optim.Sgd(weight_decay=0.5), groups=groups)
    parameters = LAYOUT.pack({name: np.ones(slot.shape, slot.dtype) for name, slot in LAYOUT.slots.items()})
    state = optim.init(optimizer, LAYOUT)
    for step in range(1, steps + 1):
        gradients = LAYOUT.pack({name: np.ones(slot.shape, slot.dtype) for name, slot in LAYOUT.slots.items()})
        optim.apply(optimizer, LAYOUT, parameters, gradients, state, step=step)
    return {name: float(1 - array.flat[0]) for name, array in LAYOUT.views(parameters).items()}


def test_the_first_match_wins() -> None:
    groups = (
        optim.ParameterGroup("*.bias", weight_decay=0),
        optim.ParameterGroup("encoder.0.*", frozen=True),
        optim.ParameterGroup("encoder.?.*", learning_rate_factor=10),
    )
    assert train(groups, steps=1) == pytest.approx(
        {
            "encoder.0.weight": 0,
            "encoder.0.bias": 0.1,
            "encoder.1.weight": 1.5,
            "encoder.1.bias": 0.1,
            "head": 0.15,
        }
    )


def test_a_group_may_have_a_rule_of_its_own() -> None:
    moved = train((optim.ParameterGroup("head", rule=optim.Lion(), learning_rate_factor=0.5),))
    assert moved["head"] == pytest.approx(3 * 0.05)
    assert moved["encoder.0.bias"] == train(())["encoder.0.bias"]


def test_muon_leaves_vectors_to_its_fallback_and_matrices_to_the_rule_of_their_group() -> None:
    muon = optim.Muon(fallback=optim.AdamW(weight_decay=0.25))
    adam = train((), optim.AdamW(weight_decay=0.25))
    moved = train((optim.ParameterGroup("head", rule=optim.AdamW(weight_decay=0.25)),), muon)
    assert moved["encoder.0.bias"] == adam["encoder.0.bias"]
    assert moved["head"] == adam["head"]
    assert moved["encoder.0.weight"] != adam["encoder.0.weight"]


def test_muons_fallback_may_have_a_learning_rate_of_its_own() -> None:
    fallback = optim.AdamW(weight_decay=0)
    moved = train((), optim.Muon(fallback=fallback, fallback_learning_rate_factor=0.25))
    assert moved["encoder.0.bias"] == pytest.approx(0.25 * train((), fallback)["encoder.0.bias"], rel=1e-6)
    assert moved["encoder.0.weight"] == train((), optim.Muon())["encoder.0.weight"]


def test_a_weight_decay_for_a_group_reaches_muons_fallback() -> None:
    moved = train((optim.ParameterGroup("*.bias", weight_decay=0),), optim.Muon())
    assert moved["encoder.0.bias"] == train((), optim.AdamW(weight_decay=0))["encoder.0.bias"]


def test_frozen_parameters_do_not_count_when_norms_are_clipped() -> None:
    groups = (optim.ParameterGroup("head", frozen=True),)
    optimizer = optim.Optimizer(1, optim.Sgd(), optim.Clipping(global_norm=1), groups=groups)
    parameters, gradients = LAYOUT.zeros(), LAYOUT.zeros()
    LAYOUT.views(gradients)["head"][...] = 1e6
    LAYOUT.views(gradients)["encoder.1.bias"][...] = [3, 4]
    optim.apply(optimizer, LAYOUT, parameters, gradients, optim.init(optimizer, LAYOUT), step=1)
    np.testing.assert_allclose(LAYOUT.views(parameters)["encoder.1.bias"], [-0.6, -0.8], rtol=1e-6)
    assert not LAYOUT.views(parameters)["head"].any()


def test_only_state_that_some_rule_needs_is_kept() -> None:
    groups = (optim.ParameterGroup("head", rule=optim.Lion()), optim.ParameterGroup("*", rule=optim.Sgd()))
    state = optim.init(optim.Optimizer(0.1, optim.Adam(), groups=groups), LAYOUT)
    assert {dtype.name: sorted(vectors) for dtype, vectors in state.items()} == {"float32": [], "float64": ["momentum"]}


def test_a_pattern_that_matches_nothing_is_refused_and_told_what_there_is() -> None:
    groups = (optim.ParameterGroup("*.bias"), optim.ParameterGroup("*.gain", frozen=True))
    with pytest.raises(optim.OptimizerError, match=r"'\*\.gain' matches no trainable parameter.*head") as caught:
        optim.init(optim.Optimizer(0.1, optim.Sgd(), groups=groups), LAYOUT)
    assert caught.value.field == "optimizer.groups[1].pattern"


def test_too_many_groups_are_refused() -> None:
    with pytest.raises(optim.OptimizerError, match=r"1001 parameter groups.* at most 1000"):
        optim.Optimizer(0.1, optim.Sgd(), groups=(optim.ParameterGroup("*"),) * 1001)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"pattern": ""}, "pattern"),
        ({"pattern": "*", "learning_rate_factor": -1}, "learning_rate_factor"),
        ({"pattern": "*", "weight_decay": -1}, "weight_decay"),
        ({"pattern": "*", "frozen": True, "weight_decay": 0}, "frozen"),
        ({"pattern": "*", "frozen": True, "learning_rate_factor": 2}, "frozen"),
        ({"pattern": "*", "frozen": True, "rule": optim.Sgd()}, "frozen"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(optim.OptimizerError) as caught:
        optim.ParameterGroup(**settings)
    assert caught.value.field == field
