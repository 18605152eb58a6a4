"""Tenants are held to their rates, whatever those are at the time, and are told when to come again."""

import pytest

from backwire_server.rpc.rates import Rates
from backwire_server.sessions.errors import Overloaded
from backwire_server.sessions.limits import UNLIMITED, TenantLimits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def held_to(clock: Clock, **limits: int) -> Rates:
    """Rates that hold the tenant `a`, and nobody else, to these limits."""
    own = TenantLimits(**limits)
    return Rates(lambda tenant: own if tenant == "a" else UNLIMITED, clock=clock)


def test_a_second_has_so_many_calls_and_the_next_as_many(clock: Clock) -> None:
    rates = held_to(clock, tenant_calls_per_second=3)
    for _ in range(2):
        for _ in range(3):
            rates.begin("a")
        with pytest.raises(Overloaded) as caught:
            rates.begin("a")
        assert caught.value.quota == "tenant_calls_per_second"
        clock.now += 60.0  # what was not used for long is not saved up


def test_who_waits_as_long_as_told_is_let_in(clock: Clock) -> None:
    rates = held_to(clock, tenant_calls_per_second=2)
    for _ in range(2):
        rates.begin("a")
    for _ in range(20):
        with pytest.raises(Overloaded) as caught:
            rates.begin("a")
        assert caught.value.retry_after is not None
        clock.now += caught.value.retry_after
        rates.begin("a")
        clock.now += 0.5 - caught.value.retry_after


def test_others_are_not_held_to_it(clock: Clock) -> None:
    rates = held_to(clock, tenant_calls_per_second=1)
    rates.begin("a")
    for _ in range(10):
        rates.begin("b")


def test_bytes_beyond_the_rate_keep_the_tenant_from_its_next_call(clock: Clock) -> None:
    rates = held_to(clock, tenant_bytes_per_second=1_000)
    rates.begin("a")
    rates.received("a", 5_000)
    with pytest.raises(Overloaded) as caught:
        rates.begin("a")
    assert caught.value.quota == "tenant_bytes_per_second"
    assert caught.value.retry_after == pytest.approx(4.0, abs=0.01)
    clock.now += 4.1
    rates.begin("a")


def test_work_beyond_the_rate_is_refused_before_it_is_done(clock: Clock) -> None:
    rates = held_to(clock, tenant_flops_per_second=1_000)
    rates.compute("a", 3_000)
    with pytest.raises(Overloaded) as caught:
        rates.compute("a", 1)
    assert caught.value.quota == "tenant_flops_per_second"
    with pytest.raises(Overloaded):
        rates.begin("a")
    clock.now += 2.1
    rates.begin("a")
    rates.compute("a", 1)
    rates.compute("b", 10**12)


def test_all_together_are_held_to_a_rate(clock: Clock) -> None:
    rates = Rates(max_calls_per_second=2, clock=clock)
    rates.begin("a")
    rates.begin("b")
    with pytest.raises(Overloaded) as caught:
        rates.begin("c")
    assert caught.value.quota == "max_calls_per_second"


def test_a_limit_that_changes_holds_from_then_on(clock: Clock) -> None:
    current = TenantLimits(tenant_calls_per_second=1)
    rates = Rates(lambda _: current, clock=clock)
    rates.begin("a")
    current = TenantLimits(tenant_calls_per_second=5)
    for _ in range(5):
        rates.begin("a")
    with pytest.raises(Overloaded):
        rates.begin("a")
