"""Random training runs, the same for every optimizer, and the comparison of their results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server import optim

Arrays = dict[str, NDArray[Any]]
Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], None]

SHAPES = {"bias": (3,), "weight": (5, 3), "kernel": (2, 3, 2, 2), "scale": (), "wide": (2, 7)}


@dataclass(frozen=True)
class Run:
    """Initial parameters, and the gradients of every step."""

    parameters: Arrays
    gradients: list[Arrays]

    @property
    def layout(self) -> optim.FlatLayout:
        return optim.FlatLayout({name: (array.dtype, array.shape) for name, array in self.parameters.items()})

    def train(self, optimizer: optim.Optimizer, rates: Mapping[int, float] | None = None) -> Arrays:
        """The parameters after all steps; `rates` gives a learning rate for single steps, counted from 1."""
        return self.train_with_state(optimizer, rates)[0]

    def train_with_state(
        self, optimizer: optim.Optimizer, rates: Mapping[int, float] | None = None
    ) -> tuple[Arrays, optim.OptimizerState]:
        layout = self.layout
        vectors, state = layout.pack(self.parameters), optim.init(optimizer, layout)
        for step, gradients in enumerate(self.gradients, start=1):
            rate = (rates or {}).get(step)
            optim.apply(optimizer, layout, vectors, layout.pack(gradients), state, step=step, learning_rate=rate)
        return layout.views(vectors), state


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    return np.dtype(str(request.param))


@pytest.fixture
def run(dtype: np.dtype[Any]) -> Run:
    """50 steps over five parameters, with gradients of very different magnitudes."""
    generator = np.random.default_rng(7)

    def draw() -> Arrays:
        size = 10.0 ** generator.uniform(-3, 1)
        return {name: np.asarray(size * generator.standard_normal(shape), dtype) for name, shape in SHAPES.items()}

    return Run(draw(), [draw() for _ in range(50)])


@pytest.fixture
def assert_close(dtype: np.dtype[Any]) -> Compare:
    """Compares named arrays to a few roundings of the dtype."""
    tolerance = 64 * float(np.finfo(dtype).eps)

    def compare(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            assert actual[name].dtype == dtype
            np.testing.assert_allclose(actual[name], array, rtol=tolerance, atol=tolerance, err_msg=name)

    return compare
