"""What holds for every optimizer, whatever its rule."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server import optim
from backwire_server.optim.gradients import BLOCK

Array = NDArray[Any]
F32, F64 = np.dtype("float32"), np.dtype("float64")
LAYOUT = optim.FlatLayout({"w": ("float32", (4, 3)), "x": ("float64", (2,)), "b": ("float32", (3,))})
EVERYTHING = optim.Clipping(value=0.5, norm=2, global_norm=1)


@dataclasses.dataclass(frozen=True)
class Example:
    """A rule with the learning rates that suit it on the targets."""

    rule: optim.Rule
    quadratic: float
    rosenbrock: float

    def __str__(self) -> str:
        return type(self.rule).__name__ + ("-variant" if self.rule != type(self.rule)() else "")


EXAMPLES = [
    Example(optim.Sgd(), 0.05, 1.5e-3),
    Example(optim.Sgd(momentum=0.9, nesterov=True, weight_decay=0.01), 0.05, 2e-4),
    Example(optim.Adam(), 0.1, 0.02),
    Example(optim.Adam(amsgrad=True), 0.1, 0.02),
    Example(optim.AdamW(), 0.1, 0.02),
    Example(optim.Adamax(), 0.1, 0.02),
    Example(optim.NAdam(), 0.1, 0.02),
    Example(optim.RAdam(), 0.1, 1e-3),
    Example(optim.RAdam(decoupled=True, weight_decay=0.1), 0.1, 1e-3),
    Example(optim.RMSprop(), 0.01, 1e-3),
    Example(optim.RMSprop(momentum=0.5, centered=True), 0.002, 2e-4),
    Example(optim.Adagrad(), 0.5, 0.5),
    Example(optim.Adadelta(), 1, 1),
    Example(optim.Lion(), 0.005, 1e-3),
    Example(optim.Lamb(), 0.01, 5e-3),
    Example(optim.Muon(), 0.01, 2e-3),
]
examples = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def draw(seed: int) -> optim.Vectors:
    generator = np.random.default_rng(seed)
    return {dtype: generator.standard_normal(size).astype(dtype) for dtype, size in LAYOUT.sizes.items()}


def quadratic(p: Array) -> Array:
    """The gradient of a bowl with curvatures 1 and 4 around (1, -2)."""
    slopes: Array = np.array([1, 4]) * (p - np.array([1, -2]))
    return slopes


def rosenbrock(p: Array) -> Array:
    """The gradient of (1 - x)^2 + 100 (y - x^2)^2, whose minimum is at (1, 1)."""
    x, y = p
    return np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


Target = tuple[Callable[[Array], Array], tuple[float, float], tuple[float, float], int, float]
TARGETS: dict[str, Target] = {
    "quadratic": (quadratic, (0.1, 0.1), (1, -2), 2000, 0.02),
    "rosenbrock": (rosenbrock, (-1, 1), (1, 1), 8000, 0.1),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@examples
def test_every_rule_finds_the_minimum(example: Example, dtype: np.dtype[Any], target: str) -> None:
    """The parameter is a matrix of one row, so that Muon has something to orthogonalise."""
    gradient, start, minimum, steps, tolerance = TARGETS[target]
    bare = dataclasses.replace(example.rule, weight_decay=0)
    schedule = optim.PolynomialSchedule(steps, power=0.5)
    optimizer = optim.Optimizer(getattr(example, target), bare, schedule=schedule)
    layout = optim.FlatLayout({"p": (dtype, (1, 2))})
    parameters = {dtype: np.array(start, dtype)}
    state = optim.init(optimizer, layout)
    for step in range(1, steps + 1):
        slopes = {dtype: gradient(parameters[dtype]).astype(dtype)}
        optim.apply(optimizer, layout, parameters, slopes, state, step=step)
    np.testing.assert_allclose(parameters[dtype], minimum, atol=tolerance)


@examples
def test_dtypes_stay_and_gradients_are_only_read(example: Example) -> None:
    optimizer = optim.Optimizer(0.1, example.rule, EVERYTHING, average_decay=0.9)
    parameters, gradients, state = draw(1), draw(2), optim.init(optimizer, LAYOUT)
    for step in (1, 2):
        optim.apply(optimizer, LAYOUT, parameters, gradients, state, step=step)
    for dtype in (F32, F64):
        assert parameters[dtype].dtype == dtype
        assert all(vector.dtype == dtype for vector in state[dtype].values())
        np.testing.assert_array_equal(gradients[dtype], draw(2)[dtype])


@examples
def test_a_parameter_is_updated_the_same_whatever_lies_beside_it(example: Example) -> None:
    """Blocks and neighbours are invisible: each parameter moves as it would with an optimizer of its own."""
    shapes = {"a": (7,), "large": (2 * BLOCK + 77,), "m": (30, 20), "s": ()}
    generator = np.random.default_rng(3)
    start, slopes = ({n: generator.standard_normal(s).astype(F32) for n, s in shapes.items()} for _ in range(2))
    optimizer = optim.Optimizer(0.1, example.rule, average_decay=0.9)

    def train(names: list[str]) -> dict[str, Array]:
        layout = optim.FlatLayout({name: (F32, np.shape(start[name])) for name in names})
        parameters = layout.pack({name: np.asarray(start[name]) for name in names})
        gradients = layout.pack({name: np.asarray(slopes[name]) for name in names})
        state = optim.init(optimizer, layout)
        for step in (1, 2, 3):
            optim.apply(optimizer, layout, parameters, gradients, state, step=step)
        return layout.views(parameters)

    together = train(list(shapes))
    for name in shapes:
        np.testing.assert_array_equal(together[name], train([name])[name], err_msg=name)


@pytest.mark.parametrize("example", [example for example in EXAMPLES if not example.rule.per_tensor], ids=str)
def test_blocks_give_the_bits_of_the_whole(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = optim.Optimizer(0.1, example.rule, optim.Clipping(value=0.5))

    def train() -> optim.Vectors:
        parameters, state = draw(1), optim.init(optimizer, LAYOUT)
        for step in (1, 2, 3):
            optim.apply(optimizer, LAYOUT, parameters, draw(step), state, step=step)
        return parameters

    whole = train()
    monkeypatch.setattr("backwire_server.optim.gradients.BLOCK", 4)
    for dtype, vector in train().items():
        np.testing.assert_array_equal(vector, whole[dtype])


@examples
def test_a_run_that_is_stopped_and_restored_gives_the_same_bits(example: Example) -> None:
    optimizer = optim.Optimizer(0.1, example.rule, EVERYTHING, average_decay=0.5)
    parameters, state = draw(1), optim.init(optimizer, LAYOUT)
    for step in range(1, 11):
        if step == 6:
            saved, saved_state = copy.deepcopy(parameters), optim.copy_state(state)
        optim.apply(optimizer, LAYOUT, parameters, draw(step), state, step=step)
    for step in range(6, 11):
        optim.apply(optimizer, LAYOUT, saved, draw(step), saved_state, step=step)
    for dtype in (F32, F64):
        np.testing.assert_array_equal(saved[dtype], parameters[dtype])
        for name, vector in state[dtype].items():
            np.testing.assert_array_equal(saved_state[dtype][name], vector, err_msg=name)


@examples
def test_parameters_without_elements_are_fine(example: Example) -> None:
    layout = optim.FlatLayout({"none": (F32, (0,)), "flat": (F32, (3, 0)), "tall": (F32, (0, 3)), "p": (F64, (0,))})
    optimizer = optim.Optimizer(0.1, example.rule, EVERYTHING, average_decay=0.9)
    state = optim.init(optimizer, layout)
    optim.apply(optimizer, layout, layout.zeros(), layout.zeros(), state, step=1)


def test_no_parameters_at_all_are_fine() -> None:
    layout = optim.FlatLayout({})
    optimizer = optim.Optimizer(0.1, optim.Adam(), EVERYTHING)
    optim.apply(optimizer, layout, {}, {}, optim.init(optimizer, layout), step=1)


def test_clipping_counts_all_dtypes_together() -> None:
    gradients: optim.Vectors = {F32: np.full(15, 3, F32), F64: np.full(2, 3, F64)}
    optimizer = optim.Optimizer(1, optim.Sgd(), optim.Clipping(global_norm=1))
    parameters = LAYOUT.zeros()
    optim.apply(optimizer, LAYOUT, parameters, gradients, optim.init(optimizer, LAYOUT), step=1)
    assert optim.global_norm(parameters) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_a_wrong_learning_rate_for_a_step_changes_nothing(rate: float) -> None:
    optimizer = optim.Optimizer(0.1, optim.Adam())
    parameters, state = draw(1), optim.init(optimizer, LAYOUT)
    with pytest.raises(optim.OptimizerError, match="learning_rate is") as caught:
        optim.apply(optimizer, LAYOUT, parameters, draw(2), state, step=1, learning_rate=rate)
    assert caught.value.field == "learning_rate"
    np.testing.assert_array_equal(parameters[F32], draw(1)[F32])
    assert not state[F32]["first_moment"].any()


@pytest.mark.parametrize("rate", [-1, float("inf")])
def test_a_learning_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(optim.OptimizerError, match=r"learning_rate is .*; it must be a finite number of at least 0"):
        optim.Optimizer(rate, optim.Sgd())


def test_figures_given_as_numpy_scalars_do_not_widen_float32() -> None:
    rule = optim.Lion(beta1=np.float64(0.5))
    assert type(rule.beta1) is float
    assert type(optim.Optimizer(np.float64(0.1), rule).learning_rate) is float


def test_an_average_starts_at_the_first_parameters_and_lags_behind() -> None:
    layout = optim.FlatLayout({"p": (F64, (1,))})
    optimizer = optim.Optimizer(1, optim.Sgd(), average_decay=0.75)
    parameters, state = layout.zeros(), optim.init(optimizer, layout)
    seen = []
    for step in (1, 2, 3):
        optim.apply(optimizer, layout, parameters, {F64: np.array([-4.0])}, state, step=step)
        average = optim.averages(state)
        assert average is not None
        seen.append(float(average[F64][0]))
    assert seen == pytest.approx([4, 0.75 * 4 + 0.25 * 8, 0.75 * 5 + 0.25 * 12])


def test_without_a_decay_there_is_no_average() -> None:
    assert optim.averages(optim.init(optim.Optimizer(1, optim.Adam()), LAYOUT)) is None


@pytest.mark.parametrize("decay", [1, -0.1])
def test_an_average_that_never_moves_or_overshoots_is_refused(decay: float) -> None:
    with pytest.raises(optim.OptimizerError, match=r"average_decay is .*; it must be a finite number in \[0, 1\)"):
        optim.Optimizer(1, optim.Sgd(), average_decay=decay)
