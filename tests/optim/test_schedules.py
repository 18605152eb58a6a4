"""Learning rates over the steps: known values, and PyTorch's where it is installed."""

import math
import warnings
from typing import Any

import pytest

from backwire_server import optim

BASE = 0.4


def rates(schedule: optim.Schedule, steps: int) -> list[float]:
    return [schedule.rate(step, BASE) for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (optim.ConstantSchedule(0.5, 2), [0.5, 0.5, 1, 1]),
        (optim.StepSchedule(2, 0.5), [1, 1, 0.5, 0.5, 0.25]),
        (optim.MultiStepSchedule((1, 3), 0.5), [1, 0.5, 0.5, 0.25, 0.25]),
        (optim.MultiStepSchedule((1, 1), 0.5), [1, 0.25, 0.25]),
        (optim.MultiStepSchedule((), 0.5), [1, 1]),
        (optim.ExponentialSchedule(2), [1, 2, 4]),
        (optim.LinearSchedule(2, 0.5), [0.5, 0.75, 1, 1]),
        (optim.LinearSchedule(2, 1, 0), [1, 0.5, 0, 0]),
        (optim.PolynomialSchedule(2, 2), [1, 0.25, 0, 0]),
        (optim.CosineSchedule(2), [1, 0.5, 0, 0]),
        (optim.CosineSchedule(2, BASE / 2), [1, 0.75, 0.5, 0.5]),
        (optim.CosineRestartsSchedule(2), [1, 0.5, 1, 0.5, 1]),
        (optim.CosineRestartsSchedule(1, 2), [1, 1, 0.5, 1, (1 + math.sqrt(0.5)) / 2, 0.5]),
        (optim.OneCycleSchedule(5, 0.6, 4, 2, linear=True), [0.25, 0.625, 1, 0.5625, 0.125, 0.125]),
        (optim.OneCycleSchedule(1), [1 / 25 / 1e4]),
        (optim.SequentialSchedule((optim.ConstantSchedule(), optim.StepSchedule(1, 0.5)), (2,)), [1, 1, 1, 0.5, 0.25]),
        (optim.ChainedSchedule((optim.StepSchedule(2, 0.5), optim.ExponentialSchedule(0.1))), [1, 0.1, 5e-3, 5e-4]),
    ],
    ids=str,
)
def test_rates_are_the_base_times_known_factors(schedule: optim.Schedule, factors: list[float]) -> None:
    assert rates(schedule, len(factors)) == pytest.approx([BASE * factor for factor in factors])


def test_a_warm_up_before_a_decay() -> None:
    schedule = optim.SequentialSchedule((optim.LinearSchedule(100, 0), optim.CosineSchedule(900)), (100,))
    assert schedule.rate(1, BASE) == 0
    assert schedule.rate(51, BASE) == pytest.approx(BASE / 2)
    assert schedule.rate(101, BASE) == BASE
    assert schedule.rate(551, BASE) == pytest.approx(BASE / 2)
    assert schedule.rate(5000, BASE) == 0


def test_an_optimizer_steps_by_its_schedule_unless_the_step_has_a_rate_of_its_own(run: Any) -> None:
    schedule = optim.StepSchedule(10, 0.5)
    scheduled = run.train(optim.Optimizer(0.1, optim.Sgd(), schedule=schedule), {7: 0.3})
    wanted = {step: 0.1 * 0.5 ** ((step - 1) // 10) for step in range(1, 51)} | {7: 0.3}
    by_hand = run.train(optim.Optimizer(123, optim.Sgd()), wanted)
    for name, array in by_hand.items():
        assert (scheduled[name] == array).all()


def test_a_rate_that_grows_past_all_numbers_is_refused() -> None:
    optimizer = optim.Optimizer(1, optim.Sgd(), schedule=optim.ExponentialSchedule(10))
    assert optimizer.rate(3) == 100
    with pytest.raises(optim.OptimizerError, match="rate at step 1000 is out of range") as caught:
        optimizer.rate(1000)
    assert caught.value.field == "schedule"


def torch_schedules(torch: Any) -> list[tuple[optim.Schedule, Any]]:
    """Our schedules beside PyTorch's, as functions of an optimizer."""
    kinds = torch.optim.lr_scheduler
    return [
        (optim.ConstantSchedule(0.25, 7), lambda o: kinds.ConstantLR(o, 0.25, 7)),
        (optim.StepSchedule(7, 0.3), lambda o: kinds.StepLR(o, 7, 0.3)),
        (optim.MultiStepSchedule((5, 20, 21), 0.3), lambda o: kinds.MultiStepLR(o, [5, 20, 21], 0.3)),
        (optim.ExponentialSchedule(0.9), lambda o: kinds.ExponentialLR(o, 0.9)),
        (optim.LinearSchedule(13, 0.1, 0.7), lambda o: kinds.LinearLR(o, 0.1, 0.7, 13)),
        (optim.LinearSchedule(5), lambda o: kinds.LinearLR(o)),
        (optim.PolynomialSchedule(30, 2.5), lambda o: kinds.PolynomialLR(o, 30, 2.5)),
        (optim.CosineSchedule(49, 0.01), lambda o: kinds.CosineAnnealingLR(o, 49, 0.01)),
        (optim.CosineRestartsSchedule(7, 1, 0.01), lambda o: kinds.CosineAnnealingWarmRestarts(o, 7, 1, 0.01)),
        (optim.CosineRestartsSchedule(3, 2), lambda o: kinds.CosineAnnealingWarmRestarts(o, 3, 2)),
        (optim.OneCycleSchedule(50), lambda o: kinds.OneCycleLR(o, BASE, 50)),
        (
            optim.OneCycleSchedule(50, 0.37, 10, 100, linear=True, three_phases=True),
            lambda o: kinds.OneCycleLR(
                o, BASE, 50, None, None, 0.37, "linear", True, 0.85, 0.95, 10, 100, three_phase=True
            ),
        ),
        (
            optim.SequentialSchedule(
                (optim.LinearSchedule(10, 0.1), optim.ExponentialSchedule(0.9), optim.CosineSchedule(25)), (10, 25)
            ),
            lambda o: kinds.SequentialLR(
                o,
                [kinds.LinearLR(o, 0.1, 1, 10), kinds.ExponentialLR(o, 0.9), kinds.CosineAnnealingLR(o, 25)],
                [10, 25],
            ),
        ),
        (
            optim.ChainedSchedule(
                (optim.ConstantSchedule(0.1, 4), optim.StepSchedule(9, 0.5), optim.CosineSchedule(49))
            ),
            lambda o: kinds.ChainedScheduler(
                [kinds.ConstantLR(o, 0.1, 4), kinds.StepLR(o, 9, 0.5), kinds.CosineAnnealingLR(o, 49)]
            ),
        ),
    ]


def test_fifty_rates_equal_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for ours, make in torch_schedules(torch):
        theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE, momentum=0.9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch warns about its own use of step(0)
            scheduler = make(theirs)
            expected = []
            for _ in range(50):
                expected.append(float(theirs.param_groups[0]["lr"]))
                theirs.step()
                scheduler.step()
        assert rates(ours, 50) == pytest.approx(expected, rel=1e-9, abs=1e-12), ours


@pytest.mark.parametrize(
    ("kind", "arguments", "field"),
    [
        (optim.ConstantSchedule, {"factor": 2}, "factor"),
        (optim.ConstantSchedule, {"steps": -1}, "steps"),
        (optim.StepSchedule, {"every": 0}, "every"),
        (optim.StepSchedule, {"every": 1, "factor": 0}, "factor"),
        (optim.MultiStepSchedule, {"milestones": (3, 2)}, "milestones"),
        (optim.MultiStepSchedule, {"milestones": (0,)}, "milestones"),
        (optim.ExponentialSchedule, {"factor": math.nan}, "factor"),
        (optim.LinearSchedule, {"steps": 0}, "steps"),
        (optim.LinearSchedule, {"steps": 1, "start_factor": -1}, "start_factor"),
        (optim.PolynomialSchedule, {"steps": 1, "power": 0}, "power"),
        (optim.CosineSchedule, {"steps": 1, "minimum": -1}, "minimum"),
        (optim.CosineRestartsSchedule, {"steps": 1, "growth": 0}, "growth"),
        (optim.OneCycleSchedule, {"steps": 1, "warmup_share": 1.1}, "warmup_share"),
        (optim.OneCycleSchedule, {"steps": 1, "warmup_share": 0.6, "three_phases": True}, "warmup_share"),
        (optim.OneCycleSchedule, {"steps": 1, "initial_divisor": 0.5}, "initial_divisor"),
        (optim.SequentialSchedule, {"schedules": (), "milestones": ()}, "milestones"),
        (optim.SequentialSchedule, {"schedules": (optim.StepSchedule(1),), "milestones": (1,)}, "milestones"),
        (optim.ChainedSchedule, {"schedules": ()}, "schedules"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(kind: Any, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(optim.OptimizerError, match=field) as caught:
        kind(**arguments)
    assert caught.value.field == field
