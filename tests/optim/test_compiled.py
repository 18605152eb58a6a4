"""What is compiled has the bits of numpy's."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backwire_server import optim
from backwire_server.optim import compiled, summing

numba = pytest.importorskip("numba")

TIMEOUT = 30.0


def parts(dtype: str) -> list[dict[np.dtype[Any], NDArray[np.floating]]]:
    """Returns the gradients of three parts, longer than a run, with zeros, infinities and NaN among them."""
    draw, kind = np.random.default_rng(0), np.dtype(dtype)
    found = [{kind: draw.normal(size=210_007).astype(kind)} for _ in range(3)]
    found[0][kind][:4] = found[1][kind][1:5] = (0.0, -0.0, np.inf, np.nan)
    return found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_divided_sum_equals_numpy_to_the_bit(dtype: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_too = compiled.divide_sum(np.dtype(dtype), wait=True) is not None
    assert compiled_too == (dtype != "float16")
    fast, slow = parts(dtype)[:count], parts(dtype)[:count]
    weights = [3.0, 2.0, 1.5][:count]
    summing.divide_sum(fast, weights, 3.0)
    monkeypatch.setattr(compiled, "divide_sum", lambda *_: None)
    summing.divide_sum(slow, weights, 3.0)
    ((one,), (other,), (given,)) = (each[0].values() for each in (fast, slow, parts(dtype)))
    assert one.tobytes() == other.tobytes() != given.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", [optim.Adam(), optim.Adam(weight_decay=0.1), optim.AdamW()], ids=str)
def test_it_equals_numpy_to_the_bit(rule: optim.Rule, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = compiled.adam(np.dtype(dtype), wait=True)
    assert kernel is not None
    fast = train(rule, dtype)
    monkeypatch.setattr(compiled, "adam", lambda *_: None)
    slow = train(rule, dtype)

    def begin(step: int) -> None:
        monkeypatch.setattr(compiled, "adam", lambda *_: None if step % 3 else kernel)

    np.testing.assert_array_equal(fast, slow)
    mixed = train(rule, dtype, begin)
    np.testing.assert_array_equal(mixed, slow, err_msg="where it changes in the middle of a training")


def test_a_step_does_not_wait_until_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, njit = threading.Event(), numba.njit

    def held(**options: Any) -> Any:
        assert goes_on.wait(TIMEOUT)
        return njit(**options)

    monkeypatch.setattr(compiled, "_compilations", {})
    monkeypatch.setattr(numba, "njit", held)
    train(optim.Adam(), "float32")
    assert compiled.adam(np.dtype("float32")) is None
    assert [each.is_alive() for each in compiled._compilations.values()] == [True]
    goes_on.set()
    assert compiled.adam(np.dtype("float32"), wait=True) is not None


@pytest.mark.parametrize(("size", "calls"), [(10, 256), (100_000, 11), (compiled.WORTH, 1)])
def test_compiling_begins_once_numpy_has_gone_over_enough(
    size: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_compilations", {})
    begun: list[object] = []
    monkeypatch.setattr(compiled._Compilation, "start", lambda each: begun.append(each))
    for _ in range(calls):
        assert begun == []
        assert compiled.adam(np.dtype("float32"), size) is None
    assert compiled.adam(np.dtype("float32"), size) is None
    assert len(begun) == 1


def test_a_few_steps_of_a_small_model_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_compilations", {})
    monkeypatch.setattr(compiled._Compilation, "start", lambda _: pytest.fail("it compiles"))
    train(optim.Adam(), "float32", size=100)


def test_numpy_goes_on_in_the_middle_of_a_step_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(compiled, "_compilations", {})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        trained = train(optim.AdamW(), "float32")
        patch.setattr(compiled, "adam", lambda *_: None)
        np.testing.assert_array_equal(trained, train(optim.AdamW(), "float32"))
    assert compiled.adam(np.dtype("float32"), wait=True) is not None


def train(
    rule: optim.Rule, dtype: str, begin: Callable[[int], None] = lambda _: None, size: int = 70_000
) -> NDArray[np.floating]:
    """Takes 20 steps, each told of, with gradients of many magnitudes, zeros, infinities and NaN among them."""
    draw = np.random.default_rng(0)
    layout = optim.FlatLayout({"w": (dtype, (size,))})
    stepper = optim.Stepper(optim.Optimizer(1e-2, rule), layout)
    state = optim.init(optim.Optimizer(1e-2, rule), layout)
    parameters = {np.dtype(dtype): draw.normal(size=size).astype(dtype)}
    for step in range(1, 21):
        begin(step)
        gradient = (draw.normal(size=size) * 10.0 ** draw.integers(-30, 15, size)).astype(dtype)
        gradient[:4] = (0.0, -0.0, np.inf, np.nan)
        stepper.apply(parameters, {np.dtype(dtype): gradient}, state, step=step)
    return parameters[np.dtype(dtype)]
