"""When a call is repeated: backoff, the time that retries take together, and the budget of a connection."""

import math
import random
import time

import pytest

import backwire as bw
from backwire._wire._retry import Attempts, Budget

DOWN = bw.UnavailableError("down")


class Clock:
    """The monotonic clock, which stands still unless it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def attempts(retry: bw.Retry, timeout: float = math.inf, *, reached: bool = True) -> Attempts:
    budget = Budget(retry.rate)
    budget.reached = reached
    return Attempts(retry, budget, timeout)


def test_backoff_doubles_up_to_its_maximum_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 2

    monkeypatch.setattr(random, "uniform", uniform)
    left = attempts(bw.Retry(attempts=9, initial=1, maximum=4))
    waits = [left.wait_before_retry(DOWN, repeatable=True) for _ in range(8)]
    assert drawn == [(0, 1), (0, 2), *[(0, 4)] * 6]
    assert waits == [0.5, 1, *[2] * 6]
    assert left.wait_before_retry(DOWN, repeatable=True) is None


@pytest.mark.parametrize("reason", ["WRONG_REPLICA", "NO_WORKER"])
def test_the_wait_does_not_grow_while_another_server_is_about_to_take_over(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    left = attempts(bw.Retry(initial=0.1))
    soon = bw.UnavailableError("the owner may be dead", reason=reason, retry_after=0.1)
    assert [left.wait_before_retry(soon, repeatable=True) for _ in range(8)] == pytest.approx([0.2] * 8)
    assert left.wait_before_retry(DOWN, repeatable=True) == pytest.approx(0.1), "as after a first failure"


def test_the_wait_is_no_shorter_than_the_server_asks_for_and_no_longer_than_the_deadline() -> None:
    asked = bw.OverloadedError("busy", retry_after=7)
    wait = attempts(bw.Retry()).wait_before_retry(asked, repeatable=True)
    assert wait is not None
    assert 7 <= wait <= 7.1
    assert attempts(bw.Retry(), 5).wait_before_retry(asked, repeatable=True) is None
    assert attempts(bw.Retry(seconds=5)).wait_before_retry(asked, repeatable=True) is None


def test_a_restart_of_half_a_minute_is_waited_for_and_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    left, began = attempts(bw.Retry(), 60), clock.now
    while (wait := left.wait_before_retry(DOWN, repeatable=True)) is not None:
        clock.now += wait
    assert 30 < clock.now - began <= 45


LATE = bw.DeadlineExceededError("no answer")


@pytest.mark.parametrize("error", [LATE, DOWN])
def test_a_call_whose_time_passed_while_the_process_stood_still_has_all_of_it_once_more(
    monkeypatch: pytest.MonkeyPatch, error: bw.BackwireError
) -> None:
    clock = Clock(monkeypatch)
    left = attempts(bw.Retry(), 60)
    clock.now += 3_600
    assert left.wait_before_retry(error, repeatable=True) is not None
    assert left.remaining == 60
    clock.now += 3_600
    assert left.wait_before_retry(error, repeatable=True) is None, "and no more than once"


@pytest.mark.parametrize(("late", "repeatable", "most"), [(0.5, True, None), (3_600, False, None), (3_600, True, 1)])
def test_a_call_whose_time_passed_is_given_up_where_it_was_noticed_or_nothing_is_to_be_repeated(
    monkeypatch: pytest.MonkeyPatch, late: float, repeatable: bool, most: int | None
) -> None:
    clock = Clock(monkeypatch)
    left = attempts(bw.Retry(attempts=most), 60)
    clock.now += 60 + late
    assert left.wait_before_retry(LATE, repeatable=repeatable) is None


def test_an_address_where_nobody_ever_answered_is_given_up_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    left, began = attempts(bw.Retry(), 60, reached=False), clock.now
    while (wait := left.wait_before_retry(DOWN, repeatable=True)) is not None:
        clock.now += wait
    assert 3 < clock.now - began <= 5


def test_a_server_that_says_why_it_refuses_was_reached() -> None:
    starting = bw.UnavailableError("recovering", reason="RECOVERING", retry_after=6)
    assert attempts(bw.Retry(), reached=False).wait_before_retry(starting, repeatable=True) is not None


def test_the_calls_on_a_connection_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    retry = bw.Retry(initial=0, maximum=0, rate=10)
    budget = Budget(retry.rate)
    budget.reached = True
    calls = [Attempts(retry, budget, math.inf) for _ in range(30)]
    waits = [call.wait_before_retry(DOWN, repeatable=True) for call in calls]
    assert waits[:10] == [0.0] * 10
    assert waits[10:] == pytest.approx([0.1 * number for number in range(1, 21)])
    clock.now += 2
    assert calls[0].wait_before_retry(DOWN, repeatable=True) == pytest.approx(0.1)
    for _ in range(100):
        budget.succeeded()
    assert [call.wait_before_retry(DOWN, repeatable=True) for call in calls[:11]] == pytest.approx([0.0] * 10 + [0.1])
    assert budget.take(0.05) is None
    assert budget.take(0.2) == pytest.approx(0.2)


def test_retry_refuses_figures_that_cannot_work() -> None:
    for wrong in ({"attempts": 0}, {"seconds": -1}, {"first_contact": math.nan}, {"initial": 2}):
        with pytest.raises(bw.InvalidRequestError, match="attempts >= 1"):
            bw.Retry(**wrong)
    with pytest.raises(bw.InvalidRequestError, match="rate"):
        bw.Retry(rate=0)
