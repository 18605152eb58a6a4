"""Before anything is timed: the models of the benchmark are the same for all who compute them."""

import importlib.util
import sys
from collections.abc import Iterator

import pytest
from tests.benchmarks import steps, values
from tests.benchmarks.conductor import Kind, Unavailable, Worker, workers

ENGINE = Kind("engine", "engine")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is an extra")


@pytest.fixture(scope="module")
def engine() -> Iterator[Worker]:
    with workers([ENGINE], sys.executable) as (worker,):
        yield worker


@pytest.fixture(scope="module")
def torch() -> Iterator[Worker]:
    with workers([steps.BASE], sys.executable) as (worker,):
        yield worker


@needs_torch
@pytest.mark.parametrize("model", values.MODELS)
def test_the_engine_computes_what_pytorch_computes(engine: Worker, torch: Worker, model: str) -> None:
    steps.check(engine.setup(model), torch.setup(model))


def test_another_model_is_found_out(engine: Worker) -> None:
    expected = engine.setup("tiny")
    for name in expected["gradients"]:
        wrong = {**expected["gradients"], name: [1.02 * part for part in expected["gradients"][name]]}
        with pytest.raises(Unavailable, match="differs from PyTorch"):
            steps.check({**expected, "gradients": wrong}, expected)
    with pytest.raises(Unavailable, match="other parameters"):
        steps.check({**expected, "gradients": {}}, expected)


def test_a_step_is_timed_and_trains(engine: Worker) -> None:
    engine.setup("tiny")
    found = engine.run(5)
    assert found["wall"] > 0
    assert found["resident"] > 0
    profile = engine.profile(3)
    assert any(each["name"].startswith(("Gemm", "MatMul")) for each in profile["operators"])
    assert profile["functions"]


def test_a_contender_that_cannot_start_says_why() -> None:
    with workers([Kind("nobody", "nobody")], sys.executable) as (worker,), pytest.raises(Unavailable, match="nobody"):
        worker.setup("S")


def test_every_contender_has_a_target_for_every_model_or_for_none() -> None:
    assert all(set(targets) == set(values.MODELS) for targets in steps.TARGETS.values())
