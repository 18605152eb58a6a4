"""The compiled update of Adam has the bits of numpy's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server import optim
from backwire_server.optim import compiled

pytest.importorskip("numba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", [optim.Adam(), optim.Adam(weight_decay=0.1), optim.AdamW()], ids=str)
def test_it_equals_numpy_to_the_bit(rule: optim.Rule, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled.adam() is not None
    fast = train(rule, dtype)
    monkeypatch.setattr(compiled, "adam", lambda: None)
    np.testing.assert_array_equal(fast, train(rule, dtype))


def train(rule: optim.Rule, dtype: str) -> NDArray[np.floating]:
    """Takes 20 steps with gradients of many magnitudes, zeros, infinities and NaN among them."""
    draw, size = np.random.default_rng(0), 70_000
    layout = optim.FlatLayout({"w": (dtype, (size,))})
    stepper = optim.Stepper(optim.Optimizer(1e-2, rule), layout)
    state = optim.init(optim.Optimizer(1e-2, rule), layout)
    parameters = {np.dtype(dtype): draw.normal(size=size).astype(dtype)}
    for step in range(1, 21):
        gradient = (draw.normal(size=size) * 10.0 ** draw.integers(-30, 15, size)).astype(dtype)
        gradient[:4] = (0.0, -0.0, np.inf, np.nan)
        stepper.apply(parameters, {np.dtype(dtype): gradient}, state, step=step)
    return parameters[np.dtype(dtype)]
