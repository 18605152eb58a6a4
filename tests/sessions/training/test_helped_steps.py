"""Steps whose parts helpers compute have the bits of those that a session computes alone."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sessions.parted_steps import batch, by_hand, kill, network, step, trained
from tests.storage.durable import Disk

from backwire_server.engine.errors import InvalidValue
from backwire_server.parallel import crew
from backwire_server.parallel.crew import Crew
from backwire_server.sessions import errors
from backwire_server.sessions.calls import SetCall, TrainCall
from backwire_server.sessions.scope import UNBOUNDED


class TestHelpers:
    def test_compute_the_same_bits(self, make_session: Any, helpers: Crew) -> None:
        session, hand = make_session(network(3)), make_session(network())
        for number in range(trained(session, helpers, more=8)):
            by_hand(hand, number, 3)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_read_parameters_that_were_set_or_are_frozen(self, make_session: Any, helpers: Crew) -> None:
        session, hand = make_session(network(3)), make_session(network())
        count = trained(session, helpers)
        for number in range(count):
            by_hand(hand, number, 3)
        values = {"table": np.full(4, 2.0, np.float32), "in/bias": np.full(6, 0.25, np.float32)}
        with session.parameters(UNBOUNDED):  # a reader, for whom what is set is written elsewhere
            for each in (session, hand):
                each.set_parameters(UNBOUNDED, SetCall(values).values)
        for number in range(trained(session, helpers)):
            by_hand(hand, number, 3)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_that_are_killed_are_replaced_and_the_step_is_done_once(
        self, make_session: Any, helpers: Crew, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(crew, "RESTART_SECONDS", 0.1)  # one that ends while it starts would have others wait
        session, hand = make_session(network(3)), make_session(network())
        numbers = list(range(trained(session, helpers)))
        for while_they_compute in (False, True):
            doomed = helpers.pids
            assert doomed
            for pid in doomed:
                os.kill(pid, signal.SIGSTOP if while_they_compute else signal.SIGKILL)
            killer = threading.Timer(0.2 * while_they_compute, kill, [doomed])
            killer.start()
            step(session, len(numbers))  # a part that was given to a process that stands still waits for its end
            killer.join()
            numbers.append(len(numbers))
            numbers += range(trained(session, helpers))
            assert not set(doomed) & set(helpers.pids)
        for number in numbers:
            by_hand(hand, number, 3)
        assert session.info().step == len(numbers)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_leave_it_to_the_session_to_say_what_is_wrong(self, make_session: Any, helpers: Crew) -> None:
        session = make_session(network(3))
        trained(session, helpers)
        before = session.digest(UNBOUNDED)
        wrong = batch(0)
        wrong["labels"][-1] = 7
        for _ in range(3):
            with pytest.raises(InvalidValue, match="7"):
                session.train_step(UNBOUNDED, TrainCall(wrong))
        assert session.digest(UNBOUNDED) == before
        assert trained(session, helpers) > 0

    def test_serve_several_sessions(self, make_session: Any, helpers: Crew) -> None:
        sessions = [make_session(network(3)) for _ in range(6)]  # more than a helper knows at a time
        counts = [trained(session, helpers) for session in (*sessions, sessions[0])]
        for session, count in zip(sessions[1:], counts[1:], strict=False):
            hand = make_session(network())
            for number in range(count):
                by_hand(hand, number, 3)
            assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)

    def test_serve_sessions_at_the_same_time(self, make_session: Any, helpers: Crew) -> None:
        sessions = [make_session(network(3)) for _ in range(4)]
        trained(sessions[0], helpers)
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda session: [step(session, number) for number in range(20)], sessions[1:]):
                pass
        hand = make_session(network())
        for number in range(20):
            by_hand(hand, number, 3)
        assert {session.digest(UNBOUNDED) for session in sessions[1:]} == {hand.digest(UNBOUNDED)}

    def test_go_on_after_a_call_that_ended(self, make_session: Any, helpers: Crew, scope: Any) -> None:
        session, hand = make_session(network(3)), make_session(network())
        numbers = list(range(trained(session, helpers)))
        with pytest.raises(errors.Cancelled):
            session.train_step(scope(checks=1), TrainCall(batch(50)))
        numbers += range(trained(session, helpers))
        for number in numbers:
            by_hand(hand, number, 3)
        assert session.digest(UNBOUNDED) == hand.digest(UNBOUNDED)


def test_a_recovered_session_has_the_same_bits_whatever_the_parts_were(tmp_path: Path, helpers: Crew) -> None:
    with Disk(tmp_path) as disk:
        store = disk.open()
        session = store.get(store.create(UNBOUNDED, network(3)).session_id)
        trained(session, helpers)
        for number, parts in enumerate([2, 4, 1, 0]):
            step(session, number, parts)
        before = session.digest(UNBOUNDED)
        crew.CREW.most = 0
        helpers.close()
        again = disk.open().get(session.session_id)
        assert again.info().data_parallel == 3
        assert again.digest(UNBOUNDED) == before
