"""A call that waits too long for its client gives its place to another, and is told why."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.config_parts import Capacity
from backwire_server.rpc.admission import CALLS, PIPELINES, Admission, Ticket
from backwire_server.rpc.waiting import IDLE_PATIENCE, Wait
from backwire_server.sessions.errors import Overloaded


class Clock:
    """A clock that stands still, but for `pass_by`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    """Room for two calls of each kind, which may wait 10 s."""
    capacity = Capacity(max_concurrent_calls=2, max_concurrent_pipelines=2, patience=10.0)
    return Admission(capacity, clock=clock)


def entered(admission: Admission, quota: str = CALLS) -> tuple[Ticket, list[str]]:
    """A call, and what it was told."""
    ticket, told = admission.enter(quota), []
    ticket.on_eviction(lambda: told.append("evicted"))
    return ticket, told


def test_the_one_that_waits_longest_goes_first(admission: Admission, clock: Clock) -> None:
    first, told_first = entered(admission)
    clock.pass_by(5)
    _, told_second = entered(admission)
    clock.pass_by(5.1)
    with admission.enter(CALLS):
        assert (told_first, told_second) == (["evicted"], [])
        with pytest.raises(Overloaded):
            admission.enter(CALLS)
    assert first.eviction is not None
    assert first.eviction.quota == CALLS
    assert "waited too long for its client" in str(first.eviction)
    assert first.eviction.retry_after


def test_its_place_and_its_bytes_are_given_back_once(admission: Admission, clock: Clock) -> None:
    first, _ = entered(admission)
    entered(admission)
    first.take(100)
    clock.pass_by(11)
    with admission.enter(CALLS):
        assert admission.usage(CALLS)[0] == 2
        assert admission._request_bytes == 100, "it holds them until it has ended"
        first.leave()
        assert admission.usage(CALLS)[0] == 2
        assert admission._request_bytes == 0
    assert admission.usage(CALLS)[0] == 1


def test_calls_that_compute_keep_their_places(admission: Admission, clock: Clock) -> None:
    for _ in range(2):
        ticket, _ = entered(admission)
        ticket.wait.busy()
    clock.pass_by(1e6)
    with pytest.raises(Overloaded):
        admission.enter(CALLS)


def test_an_idle_pipeline_has_more_patience_than_one_that_was_never_used(admission: Admission, clock: Clock) -> None:
    used, told_used = entered(admission, PIPELINES)
    used.wait.busy()
    used.wait.idle()
    _, told_unused = entered(admission, PIPELINES)
    clock.pass_by(11)
    third, _ = entered(admission, PIPELINES)
    third.wait.busy()
    assert (told_used, told_unused) == ([], ["evicted"])
    clock.pass_by(IDLE_PATIENCE)
    admission.enter(PIPELINES)
    assert told_used == ["evicted"]


@pytest.mark.parametrize("speak", [Wait.heard, lambda wait: (wait.send(), wait.sent())], ids=["heard", "sent"])
def test_each_sign_of_a_client_begins_its_time_anew(clock: Clock, speak: Callable[[Wait], Any]) -> None:
    wait = Wait(10.0, clock)
    if speak is not Wait.heard:
        wait.busy()
    clock.pass_by(9)
    speak(wait)
    clock.pass_by(9)
    assert wait.overdue() <= 0


def test_an_answer_that_is_not_taken_is_overdue_though_nothing_is_to_be_read(clock: Clock) -> None:
    wait = Wait(10.0, clock)
    wait.busy()
    wait.send()
    clock.pass_by(11)
    assert wait.sending
    assert wait.overdue() == pytest.approx(1.0)


def test_a_pipeline_that_was_idle_has_no_more_patience_with_a_client_that_does_not_read(clock: Clock) -> None:
    wait = Wait(10.0, clock)
    wait.idle()
    clock.pass_by(60)
    assert wait.overdue() <= 0
    wait.busy()
    wait.send()
    clock.pass_by(12)
    assert wait.overdue() == pytest.approx(2.0)


def test_a_pipeline_without_a_request_is_told_why_it_ends(serve: Any, converse: Any, until: Any, refused: Any) -> None:
    api = serve(max_concurrent_pipelines=1, patience=0.1)
    session = api.create()
    silent = converse(api)
    until(lambda: api.server.admission.usage(PIPELINES)[0] == 1)

    def another_is_answered() -> bool:
        another = converse(api)
        another.send(get_session=pb.GetSessionRequest(session_id=session))
        try:
            return len(another.answers()) == 1
        except grpc.RpcError:
            return False

    until(another_is_answered)
    told = refused(silent.answer)
    assert (told.reason, told.quota) == ("OVERLOADED", PIPELINES)
    assert "waited too long for its client" in told.message
    assert told.retry_after
