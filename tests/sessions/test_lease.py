"""At most one client at a time may write under a lease, and only who was silent for long loses it without consent."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backwire_server.sessions.calls import LeaseCall, LeaseResult
from backwire_server.sessions.errors import LeaseHeld, WriterFenced
from backwire_server.sessions.lease import WriterLease

MOST = 4
holders = st.sampled_from(["a", "b"])


class Clock:
    """Seconds that only a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> WriterLease:
    return WriterLease(clock=clock)


def may_write(lease: WriterLease, number: int) -> bool:
    try:
        lease.check(number)
    except WriterFenced:
        return False
    return True


def give(lease: WriterLease, holder: str, seconds: float = 30.0, *, take_over: bool = False) -> LeaseResult:
    return lease.apply(lease.next(holder, seconds, take_over=take_over))


def test_everybody_may_write_until_a_lease_is_given(lease: WriterLease) -> None:
    assert (lease.last, lease.current) == (None, None)
    lease.check(0)
    with pytest.raises(WriterFenced, match=r"lease 1 is over; attach again"):
        lease.check(1)


def test_only_the_number_of_the_lease_may_write(lease: WriterLease) -> None:
    assert give(lease, "first", 30.0) == LeaseResult(1, "first", 30.0)
    assert lease.current == LeaseCall(1, "first", 30.0)
    assert [may_write(lease, number) for number in (0, 1, 2)] == [False, True, False]
    with pytest.raises(WriterFenced, match=r"'first' is the only writer, under lease 1; this call has none: attach"):
        lease.check(0)
    with pytest.raises(WriterFenced, match=r"this call has lease 2") as caught:
        lease.check(2)
    assert caught.value.field == "lease"


def test_a_lease_is_held_as_long_as_its_holder_is_heard_of(lease: WriterLease, clock: Clock) -> None:
    give(lease, "first", 30.0)
    clock.now += 20.0
    lease.check(1)
    clock.now += 29.0
    with pytest.raises(LeaseHeld, match=r"'first' holds lease 1") as caught:
        lease.next("second", 5.0, take_over=False)
    assert (caught.value.field, caught.value.retry_after) == ("take_over", 1.0)
    clock.now += 1.0
    assert lease.next("second", 5.0, take_over=False) == LeaseCall(2, "second", 5.0)


def test_who_is_refused_does_not_keep_a_lease_alive(lease: WriterLease, clock: Clock) -> None:
    give(lease, "first", 30.0)
    clock.now += 29.0
    assert not may_write(lease, 0)
    assert not may_write(lease, 2)
    clock.now += 1.0
    assert give(lease, "second").number == 2


def test_a_lease_that_ran_out_writes_until_another_is_given(lease: WriterLease, clock: Clock) -> None:
    give(lease, "first", 1.0)
    clock.now += 1e6
    lease.check(1)
    with pytest.raises(LeaseHeld):
        lease.next("second", 1.0, take_over=False)
    clock.now += 1.0
    give(lease, "second", 1.0)
    assert [may_write(lease, number) for number in (0, 1, 2)] == [False, False, True]


def test_taking_over_needs_no_silence(lease: WriterLease) -> None:
    give(lease, "first")
    assert give(lease, "second", take_over=True).number == 2
    assert not may_write(lease, 1)


def test_a_lease_that_would_be_given_is_not_given_yet(lease: WriterLease) -> None:
    lease.next("first", 30.0, take_over=False)
    assert may_write(lease, 0)
    give(lease, "first")
    lease.ending(1)
    lease.next("second", 30.0, take_over=True)
    assert may_write(lease, 1)


def test_what_is_given_back_frees_the_session_and_its_number_is_never_given_again(lease: WriterLease) -> None:
    give(lease, "first")
    assert lease.apply(lease.ending(1)) == LeaseResult(1, "", 0.0)
    assert (lease.current, lease.last) == (None, LeaseCall(1, "", 0.0))
    assert [may_write(lease, number) for number in (0, 1)] == [True, False]
    assert give(lease, "second").number == 2


@pytest.mark.parametrize("number", [0, 1, 3])
def test_only_the_current_lease_can_be_given_back(lease: WriterLease, number: int) -> None:
    with pytest.raises(WriterFenced):
        lease.ending(number)
    give(lease, "first")
    give(lease, "second", take_over=True)
    with pytest.raises(WriterFenced, match=f"lease {number} is not the current one") as caught:
        lease.ending(number)
    assert caught.value.field == "number"


def test_after_a_restart_the_holder_counts_as_just_heard_of(clock: Clock) -> None:
    again = WriterLease(LeaseCall(7, "first", 30.0), clock)
    assert [may_write(again, number) for number in (0, 7)] == [False, True]
    clock.now += 29.0
    with pytest.raises(LeaseHeld):
        again.next("second", 1.0, take_over=False)
    clock.now += 1.0
    assert again.next("second", 1.0, take_over=False).number == 8


class LeaseMachine(RuleBasedStateMachine):
    """Compares with who wrote and attached, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.lease = WriterLease(clock=self.clock)
        self.given, self.heard = 0, 0.0
        self.holder: tuple[str, float] | None = None

    @rule(seconds=st.integers(0, 5))
    def pass_time(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(number=st.integers(0, MOST))
    def write(self, number: int) -> None:
        allowed = number == (self.given if self.holder else 0)
        assert may_write(self.lease, number) is allowed
        if allowed:
            self.heard = self.clock.now

    @rule(holder=holders, seconds=st.integers(1, 4), take_over=st.booleans())
    def attach(self, holder: str, seconds: int, take_over: bool) -> None:
        alive = self.holder is not None and self.clock.now < self.heard + self.holder[1]
        try:
            found = give(self.lease, holder, float(seconds), take_over=take_over)
        except LeaseHeld:
            assert alive
            assert not take_over
            return
        assert take_over or not alive
        assert found.number == self.given + 1
        self.given, self.heard, self.holder = found.number, self.clock.now, (holder, seconds)

    @rule(number=st.integers(0, MOST))
    def detach(self, number: int) -> None:
        try:
            self.lease.apply(self.lease.ending(number))
        except WriterFenced:
            assert not self.holder or number != self.given
            return
        assert self.holder
        assert number == self.given
        self.holder = None

    @rule()
    def restart(self) -> None:
        self.lease = WriterLease(self.lease.last, self.clock)
        self.heard = self.clock.now

    @invariant()
    def at_most_one_number_may_write(self) -> None:
        current = self.lease.current
        told = (current.number, current.holder, current.seconds) if current else None
        assert told == ((self.given, *self.holder) if self.holder else None)


TestLease = LeaseMachine.TestCase
