"""Passes whose parts helpers compute, or are sent where others compute them, have the bits of those computed alone."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sessions.parted_passes import PARTS, backward, forward, in_calls, late, sides
from tests.sessions.parted_steps import PAUSE, SECONDS, batch, by_hand, network, step, trained
from tests.storage.durable import ALWAYS, Disk

from backwire_server.engine.stopping import Stop
from backwire_server.parallel import crew
from backwire_server.parallel.crew import Crew
from backwire_server.parallel.shift import Local
from backwire_server.parallel.task import Result, Work
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions
from backwire_server.sessions.scope import UNBOUNDED


def test_parts_of_all_calls_may_go_to_other_nodes_by_the_pace_of_each_kind_of_call(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Work]()

    class Asked(Crew):
        def compute(self, work: Work, local: Local, stop: Stop) -> list[Result]:
            asked.append(work)
            return super().compute(work, local, stop)

    monkeypatch.setattr(crew, "CREW", Asked(0))
    session = make_session(network(PARTS))
    for number in range(2):
        in_calls(session, number)
        step(session, number)
    assert all(work.definition for work in asked)
    forwards, backwards, steps = (asked[kind].pace for kind in range(3))
    assert len({id(pace) for pace in (forwards, backwards, steps)}) == 3
    assert [id(work.pace) for work in asked] == 2 * [id(pace) for pace in (forwards, backwards, steps)]
    assert 0 < forwards.nbytes <= backwards.nbytes, "a Backward in parts makes the pass, too"
    assert steps.nbytes > 0


class TestHelpers:
    def test_compute_the_same_bits(self, make_session: Any, helpers: Crew) -> None:
        session, hand = make_session(network(PARTS)), make_session(network())
        count = trained(session, helpers)
        deadline, enough = time.monotonic() + SECONDS, helpers.helped + 12
        while helpers.helped < enough:
            assert time.monotonic() < deadline
            in_calls(session, count)
            count += 1
            time.sleep(PAUSE)
        for number in range(count):
            by_hand(hand, number, PARTS)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_differentiate_passes_of_before_steps(self, make_session: Any, helpers: Crew) -> None:
        helped, alone = make_session(sides(PARTS)), make_session(sides(PARTS))
        found = list[dict[str, Any]]()
        deadline, enough = time.monotonic() + SECONDS, 12
        while helpers.helped < enough:
            assert time.monotonic() < deadline
            found.append(late(helped, len(found)))
            time.sleep(PAUSE)
        helpers.most = 0
        helpers.close()
        for number, gradients in enumerate(found):
            for name, array in late(alone, number).items():
                np.testing.assert_array_equal(gradients[name], array)
        assert helped.digest(UNBOUNDED) == alone.digest(UNBOUNDED)

    def test_read_parameters_of_a_pass_that_was_restored(self, tmp_path: Path, helpers: Crew) -> None:
        with Disk(tmp_path) as disk:
            store = disk.open(checkpoint_bytes=ALWAYS)
            session = store.get(store.create(UNBOUNDED, network(PARTS)).session_id)
            forward(session, 0, forward_id="late", data_parallel=4)
            trained(session, helpers)
            again = disk.open().get(session.session_id)
            backward(again, "late", retain=True)
            expected = again.digest(UNBOUNDED)
            deadline, enough = time.monotonic() + SECONDS, helpers.helped + 4
            while helpers.helped < enough:
                assert time.monotonic() < deadline
                again.zero_gradients(UNBOUNDED)
                backward(again, "late", retain=True)
                assert again.digest(UNBOUNDED) == expected
            helpers.most = 0
            helpers.close()
            again.zero_gradients(UNBOUNDED)
            backward(again, "late")
            assert again.digest(UNBOUNDED) == expected

    def test_go_on_after_a_call_that_ended(self, make_session: Any, helpers: Crew, scope: Any) -> None:
        session, hand = make_session(network(PARTS)), make_session(network())
        count = trained(session, helpers)
        with pytest.raises(errors.Cancelled):
            session.forward(scope(checks=1), ForwardCall(batch(50)))
        name = forward(session, count)
        with pytest.raises(errors.Cancelled):
            session.backward(scope(checks=1), BackwardCall(name))
        backward(session, name)
        session.step(UNBOUNDED, StepOptions())
        for number in range(count + 1):
            by_hand(hand, number, PARTS)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


def test_a_recovered_session_has_the_same_bits_and_its_live_passes(
    tmp_path: Path, helpers: Crew, make_session: Any
) -> None:
    with Disk(tmp_path) as disk:
        store = disk.open()
        session = store.get(store.create(UNBOUNDED, network(PARTS)).session_id)
        count = trained(session, helpers)
        in_calls(session, 5)
        forward(session, 6, forward_id="live", data_parallel=2)
        step(session, 7)
        helpers.most = 0
        helpers.close()
        again, undisturbed = disk.open().get(session.session_id), make_session(network(PARTS))
        for number in range(count):
            step(undisturbed, number)
        in_calls(undisturbed, 5)
        forward(undisturbed, 6, forward_id="live", data_parallel=2)
        step(undisturbed, 7)
        for each in (again, undisturbed):
            backward(each, "live")
            each.step(UNBOUNDED, StepOptions())
        assert again.digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)
