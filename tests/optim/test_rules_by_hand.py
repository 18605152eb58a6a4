"""First steps worked out with pencil and paper, and figures that no rule accepts."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backwire_server import optim

F64 = np.dtype("float64")
LAYOUT = optim.FlatLayout({"p": ("float64", (1,))})


def walk(rule: optim.Rule, gradients: list[float], learning_rate: float = 0.1, start: float = 1.0) -> list[float]:
    """The values that a parameter takes, one per step."""
    optimizer = optim.Optimizer(learning_rate, rule)
    parameters, state = {F64: np.array([start], F64)}, optim.init(optimizer, LAYOUT)
    values = []
    for step, gradient in enumerate(gradients, start=1):
        optim.apply(optimizer, LAYOUT, parameters, {F64: np.array([gradient], F64)}, state, step=step)
        values.append(float(parameters[F64][0]))
    return values


def test_gradient_descent() -> None:
    assert walk(optim.Sgd(), [2, -1]) == pytest.approx([0.8, 0.9])


def test_weight_decay_adds_to_the_gradient() -> None:
    assert walk(optim.Sgd(weight_decay=0.5), [2]) == pytest.approx([1 - 0.1 * (2 + 0.5)])


def test_momentum_starts_with_the_undampened_gradient() -> None:
    # m: 2, then 0.9 * 2 + 0.75 * 4 = 4.8
    assert walk(optim.Sgd(momentum=0.9, dampening=0.25), [2, 4]) == pytest.approx([0.8, 0.8 - 0.48])


def test_nesterov_looks_ahead() -> None:
    # m: 2, then 5.8; d + 0.9 m: 3.8, then 4 + 5.22
    assert walk(optim.Sgd(momentum=0.9, nesterov=True), [2, 4]) == pytest.approx([0.62, 0.62 - 0.922])


@pytest.mark.parametrize("rule", [optim.Adam(), optim.Adam(amsgrad=True), optim.Adamax(), optim.Lion()])
def test_the_first_step_is_the_learning_rate_whatever_the_gradient(rule: optim.Rule) -> None:
    assert walk(rule, [1e3]) == pytest.approx([0.9])
    assert walk(rule, [-1e-3]) == pytest.approx([1.1], rel=1e-5)


def test_adam_second_step() -> None:
    m = (0.9 * 0.1 * 2 + 0.1 * -1) / (1 - 0.9**2)
    v = (0.999 * 0.001 * 4 + 0.001 * 1) / (1 - 0.999**2)
    assert walk(optim.Adam(), [2, -1]) == pytest.approx([0.9, 0.9 - 0.1 * m / math.sqrt(v)], rel=1e-7)


def test_amsgrad_remembers_the_largest_second_moment() -> None:
    # With beta1 = 0 and beta2 = 0.5, v is 8 and then 4; corrected by 1 - 0.5 and 1 - 0.25.
    plain = walk(optim.Adam(beta1=0, beta2=0.5), [4, 0, 1e-3])
    largest = walk(optim.Adam(beta1=0, beta2=0.5, amsgrad=True), [4, 0, 1e-3])
    assert largest[2] - largest[1] == pytest.approx(-0.1 * 1e-3 / math.sqrt(8 / (1 - 0.125)), rel=1e-6)
    assert plain[2] - plain[1] == pytest.approx(-0.1 * 1e-3 / math.sqrt(2 / (1 - 0.125)), rel=1e-5)


def test_adamw_shrinks_the_weight_beside_the_moments() -> None:
    assert walk(optim.AdamW(weight_decay=0.5), [0]) == pytest.approx([1 * (1 - 0.1 * 0.5)])
    assert walk(optim.AdamW(weight_decay=0.5), [3]) == pytest.approx([0.95 - 0.1])


def test_adamax_remembers_a_large_gradient() -> None:
    # m / (1 - 0.9^2): (0.9 * 0.4 + 0.1 * 1) / 0.19; u: max(0.5 * 4, 1)
    assert walk(optim.Adamax(beta2=0.5), [4, 1]) == pytest.approx([0.9, 0.9 - 0.1 * (0.46 / 0.19) / 2], rel=1e-7)


def test_radam_starts_as_momentum() -> None:
    # The corrected first moment of a constant gradient is the gradient, and the first five steps do not adapt.
    assert walk(optim.RAdam(), [3] * 5) == pytest.approx([0.7, 0.4, 0.1, -0.2, -0.5])


def test_rmsprop_divides_by_the_root_of_the_mean_square() -> None:
    assert walk(optim.RMSprop(decay=0.75), [2]) == pytest.approx([1 - 0.1 * 2 / math.sqrt(0.25 * 4)])


def test_centered_rmsprop_divides_by_the_standard_deviation() -> None:
    # After a gradient of 2 and decay 0.75: mean square 1, mean 0.5.
    rule = optim.RMSprop(decay=0.75, centered=True)
    assert walk(rule, [2]) == pytest.approx([1 - 0.1 * 2 / math.sqrt(1 - 0.25)])


def test_centered_rmsprop_survives_a_variance_below_zero_by_rounding() -> None:
    optimizer = optim.Optimizer(0.1, optim.RMSprop(decay=0.0, centered=True))
    generator = np.random.default_rng(0)
    gradients = {F64: generator.standard_normal(1000)}
    layout = optim.FlatLayout({"p": ("float64", (1000,))})
    parameters = layout.zeros()
    optim.apply(optimizer, layout, parameters, gradients, optim.init(optimizer, layout), step=1)
    assert np.isfinite(parameters[F64]).all()


def test_adagrad_slows_down() -> None:
    steps = walk(optim.Adagrad(), [3, 4])
    assert steps == pytest.approx([0.9, 0.9 - 0.1 * 4 / 5])
    assert walk(optim.Adagrad(learning_rate_decay=1, initial_accumulator=16), [3]) == pytest.approx([1 - 0.1 * 3 / 5])


def test_adadelta_starts_with_epsilon() -> None:
    root = math.sqrt(1e-6) / math.sqrt(0.1 * 9 + 1e-6)
    assert walk(optim.Adadelta(), [3], learning_rate=1) == pytest.approx([1 - 3 * root])


def test_lion_follows_the_sign_of_an_average() -> None:
    # m: 0.1 * 4 = 0.4; then 0.75 * 0.4 - 0.25 * 1 = 0.05 > 0, although the gradient is negative.
    assert walk(optim.Lion(beta1=0.75, beta2=0.9), [4, -1]) == pytest.approx([0.9, 0.8])
    assert walk(optim.Lion(weight_decay=0.5), [4]) == pytest.approx([0.95 - 0.1])


def test_lamb_steps_in_proportion_to_the_parameter() -> None:
    assert walk(optim.Lamb(), [1e3], start=5) == pytest.approx([4.5])
    assert walk(optim.Lamb(), [1e3], start=0) == pytest.approx([-0.1])


def test_muon_moves_all_singular_directions_alike() -> None:
    layout = optim.FlatLayout({"p": ("float64", (3, 2))})
    optimizer = optim.Optimizer(1, optim.Muon(weight_decay=0, newton_schulz_steps=10))
    parameters = layout.zeros()
    gradients = layout.pack({"p": np.array([[100.0, 0], [0, 1], [0, 0]])})
    optim.apply(optimizer, layout, parameters, gradients, optim.init(optimizer, layout), step=1)
    moved = layout.views(parameters)["p"] / -math.sqrt(3 / 2)
    assert np.diag(moved) == pytest.approx([1, 1], abs=0.35)
    assert moved - np.eye(3, 2) * np.diag(moved) == pytest.approx(0)


@pytest.mark.parametrize("rule", [optim.Sgd(momentum=0.9), optim.Adam(), optim.AdamW(), optim.Lamb(), optim.NAdam()])
def test_a_learning_rate_of_zero_changes_no_parameter(rule: optim.Rule) -> None:
    assert walk(rule, [3, -2], learning_rate=0) == [1, 1]


MOMENT_RULES = [optim.Adam, optim.AdamW, optim.Adamax, optim.NAdam, optim.RAdam, optim.Lamb]
ALL_RULES = [*MOMENT_RULES, optim.Sgd, optim.Lion, optim.RMSprop, optim.Adagrad, optim.Adadelta, optim.Muon]
BELOW_ONE, NOT_NEGATIVE, POSITIVE = r"in \[0, 1\)", "of at least 0", "above 0"


@pytest.mark.parametrize(
    ("kind", "field", "figure", "interval"),
    [
        *((kind, "beta1", 1, BELOW_ONE) for kind in [*MOMENT_RULES, optim.Lion]),
        *((kind, "beta2", -0.1, BELOW_ONE) for kind in [*MOMENT_RULES, optim.Lion]),
        *((kind, "epsilon", 0, POSITIVE) for kind in [*MOMENT_RULES, optim.RMSprop, optim.Adagrad, optim.Adadelta]),
        *((kind, "weight_decay", -1, NOT_NEGATIVE) for kind in ALL_RULES),
        *((kind, "weight_decay", math.nan, NOT_NEGATIVE) for kind in ALL_RULES),
        *((kind, "momentum", 1, BELOW_ONE) for kind in [optim.Sgd, optim.RMSprop, optim.Muon]),
        *((kind, "decay", 1, BELOW_ONE) for kind in [optim.RMSprop, optim.Adadelta]),
        (optim.Sgd, "dampening", 1.5, r"in \[0, 1\]"),
        (optim.NAdam, "momentum_decay", -1, NOT_NEGATIVE),
        (optim.Muon, "fallback_learning_rate_factor", -1, NOT_NEGATIVE),
        (optim.Adagrad, "learning_rate_decay", -1, NOT_NEGATIVE),
        (optim.Adagrad, "initial_accumulator", math.inf, NOT_NEGATIVE),
    ],
)
def test_a_figure_outside_its_range_is_refused_by_name(
    kind: Callable[..., optim.Rule], field: str, figure: Any, interval: str
) -> None:
    with pytest.raises(optim.OptimizerError, match=rf"{field} is .*; it must be a finite number {interval}") as caught:
        kind(**{field: figure})
    assert caught.value.field == field


@pytest.mark.parametrize("options", [{"momentum": 0}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_without_plain_momentum_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(optim.OptimizerError, match="nesterov needs a momentum above 0 and no dampening") as caught:
        optim.Sgd(nesterov=True, **options)
    assert caught.value.field == "nesterov"


@pytest.mark.parametrize("steps", [0, 101])
def test_muon_needs_a_sensible_number_of_iterations(steps: int) -> None:
    with pytest.raises(optim.OptimizerError, match=f"newton_schulz_steps is {steps}; it must be 1 to 100"):
        optim.Muon(newton_schulz_steps=steps)
