"""What is kept of passes in parts saves Backward work and changes no bits; without it, the passes are made again."""

from typing import Any

import pytest
from tests.sessions.parted_passes import PARTS, backward, forward
from tests.sessions.parted_steps import batch, by_hand, kill, network, trained
from tests.sessions.training.test_working import Charged
from tests.telemetry.test_metrics import samples
from tests.waiting import until

from backwire_server.engine.model import Model, Pass
from backwire_server.parallel import kept, part
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.task import Part
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.telemetry.collecting import CrewCollector
from backwire_server.telemetry.metrics import Metrics


@pytest.mark.usefixtures("alone")
def test_a_pass_holds_its_inputs_and_what_its_backward_needs_as_far_as_there_is_room(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(network(PARTS))
    backward(session, forward(session, 0))
    before, held = session.nbytes, []
    for most in (kept.KEPT_BYTES, 0):
        monkeypatch.setattr(kept, "KEPT_BYTES", most)
        name = forward(session, 1)
        held.append(session.nbytes - before)
        backward(session, name)
        assert session.nbytes == before
    assert held[0] > held[1] == sum(array.nbytes for array in batch(1).values())
    with pytest.raises(errors.PassTooLarge, match="the pass holds"):
        forward(make_session(network(PARTS), max_pass_bytes=100), 0)


@pytest.mark.usefixtures("alone")
def test_what_backward_needs_holds_no_more_than_passes_may(make_session: Any) -> None:
    held, own = [], sum(array.nbytes for array in batch(1).values())
    for limits in ({}, {"max_pass_bytes": 2 * own}):
        session = make_session(network(PARTS), **limits)
        backward(session, forward(session, 0))
        before = session.nbytes
        for number in range(2):
            forward(session, number)
        held.append(session.nbytes - before - 2 * own)
    assert held[0] > 2 * own >= held[1] > 0


@pytest.mark.usefixtures("alone")
def test_a_forward_whose_caller_is_gone_leaves_no_memory_in_use(
    make_session: Any, scope: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, gone, tell = make_session(network(PARTS)), scope(), part.result
    backward(session, forward(session, 0))
    before = session.nbytes

    def told(*given: Any) -> Any:
        gone.cancelled.set()
        return tell(*given)

    monkeypatch.setattr(part, "result", told)
    with pytest.raises(errors.Cancelled):
        session.forward(gone, ForwardCall(batch(1)))
    assert session.nbytes == before


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("most", [kept.KEPT_BYTES, 0])
def test_backward_makes_passes_again_that_were_not_kept_at_no_charge_and_with_the_same_bits(
    make_session: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    calls, steps = make_session(network(PARTS)), make_session(network(PARTS))
    monkeypatch.setattr(kept, "KEPT_BYTES", most)
    made, make = list[Part](), part.forward

    def noted(model: Model, asked: Part, *given: Any) -> Pass:
        made.append(asked)
        return make(model, asked, *given)

    monkeypatch.setattr(part, "forward", noted)
    whole, each = Charged(), Charged()
    for number in range(3):
        name = calls.forward(each, ForwardCall(batch(number))).forward_id
        made.clear()
        calls.backward(each, BackwardCall(name))
        assert len(made) == (0 if most else PARTS)
        calls.step(UNBOUNDED, StepOptions())
        steps.train_step(whole, TrainCall(batch(number)))
    assert sum(each.flops) == sum(whole.flops) > 0
    assert calls.digest(UNBOUNDED) == steps.digest(UNBOUNDED)


def test_helpers_that_are_killed_take_passes_with_them_that_are_made_again(make_session: Any, helpers: Crew) -> None:
    session, hand = make_session(network(PARTS)), make_session(network())
    count = trained(session, helpers)
    helped = helpers.helped
    name = forward(session, count)
    assert helpers.helped > helped
    kill(helpers.pids)
    backward(session, name)
    session.step(UNBOUNDED, StepOptions())
    for number in range(count + 1):
        by_hand(hand, number, PARTS)
    assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


def test_what_helpers_keep_of_passes_is_told_until_they_have_ended(make_session: Any, helpers: Crew) -> None:
    metrics = Metrics()
    metrics.watch(CrewCollector(helpers))
    figure = "backwire_helper_kept_bytes", ()
    assert samples(metrics.exposition())[figure] == 0
    session = make_session(network(PARTS))
    trained(session, helpers)
    until(lambda: forward(session, 0) and helpers.kept_bytes)
    assert samples(metrics.exposition())[figure] == helpers.kept_bytes
    kill(helpers.pids)
    until(lambda: samples(metrics.exposition())[figure] == 0)


def test_helpers_keep_no_more_of_passes_than_they_may(make_session: Any, helpers: Crew) -> None:
    helpers.pass_bytes = 0
    session = make_session(network(PARTS))
    count = trained(session, helpers)
    enough = helpers.helped + 4
    until(lambda: backward(session, forward(session, count)) and helpers.helped > enough)
    assert helpers.kept_bytes == 0
