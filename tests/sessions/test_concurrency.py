"""Many callers share a session: no contribution is lost, order is kept, and a call that ends leaves no trace."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

X = np.array([1.0, -2.0, 4.0])


def test_concurrent_backward_calls_lose_no_contribution(make_session: Any, gradients: Any) -> None:
    session = make_session(max_passes=1_000)

    def work(number: int) -> None:
        for _ in range(20):
            name = session.forward(UNBOUNDED, ForwardCall({"x": X * number})).forward_id
            session.backward(UNBOUNDED, BackwardCall(name))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1, 9)))
    assert session.info().contributions == 160
    np.testing.assert_array_equal(gradients(session)["w"], X * 20 * sum(range(1, 9)))


def test_duplicates_that_race_are_applied_once(session: Session, gradients: Any) -> None:
    name = session.forward(UNBOUNDED, ForwardCall({"x": X})).forward_id
    key = RequestKey("same", b"")
    with ThreadPoolExecutor(8) as pool:
        call = BackwardCall(name, retain=True)
        answers = list(pool.map(lambda _: session.backward(UNBOUNDED, call, key), range(32)))
    assert {answer.contributions for answer in answers} == {1}
    np.testing.assert_array_equal(gradients(session)["w"], X)


def test_of_two_clients_that_expect_the_same_step_one_wins(session: Session) -> None:
    call = TrainCall({"x": X}, options=StepOptions(expected_step=0))
    won = []

    def work(_: int) -> None:
        try:
            won.append(session.train_step(UNBOUNDED, call))
        except errors.StepMismatch:
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert [answer.result.step for answer in won] == [1]


def test_readers_see_whole_steps_while_others_train(session: Session) -> None:
    stop = threading.Event()
    torn = []

    def read() -> None:
        while not stop.is_set():
            with session.parameters(UNBOUNDED, ["w"]) as snapshot:
                expected = np.array([1.0, 2.0, 3.0]) - 0.5 * snapshot.step * X
                if not np.array_equal(dict(snapshot)["w"], expected):
                    torn.append(snapshot.step)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(200):
        session.train_step(UNBOUNDED, TrainCall({"x": X}))
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


@pytest.mark.parametrize("verb", ["forward", "backward", "step", "skip", "train", "set", "zero", "eval", "close"])
def test_a_call_that_ends_before_it_takes_effect_changes_nothing(
    session: Session, scope: Any, verb: str, values: Any, gradients: Any
) -> None:
    name = session.forward(UNBOUNDED, ForwardCall({"x": X})).forward_id
    session.backward(UNBOUNDED, BackwardCall(name, retain=True))
    calls: dict[str, Any] = {
        "forward": lambda s: session.forward(s, ForwardCall({"x": X})),
        "backward": lambda s: session.backward(s, BackwardCall(name)),
        "step": lambda s: session.step(s, StepOptions()),
        "skip": lambda s: session.step(s, StepOptions()),
        "train": lambda s: session.train_step(s, TrainCall({"x": X})),
        "set": lambda s: session.set_parameters(s, {"w": np.zeros(3), "c": np.zeros(3)}),
        "zero": lambda s: session.zero_gradients(s),
        "eval": lambda s: session.evaluate(s, ForwardCall({"x": X})),
        "close": lambda s: session.close(s),
    }

    def state() -> Any:
        info = session.info()
        contents = {name: array.tobytes() for name, array in {**values(session), **gradients(session)}.items()}
        return info.step, info.contributions, info.forward_ids, contents

    before = state()
    for checks in range(1 if verb == "eval" else 2):
        with pytest.raises(errors.Cancelled):
            calls[verb](scope(checks=checks))
        assert state() == before
    calls[verb](scope(checks=2))


def test_a_call_may_give_up_waiting_for_its_turn(session: Session, scope: Any) -> None:
    with session._turn.hold(UNBOUNDED):
        with pytest.raises(errors.DeadlineExceeded):
            session.zero_gradients(scope(seconds=0.0))
        waiting = scope()
        threading.Timer(0.05, waiting.cancelled.set).start()
        with pytest.raises(errors.Cancelled):
            session.zero_gradients(waiting)
        assert session.info().step == 0, "what a session is can be told at any time"
    session.train_step(UNBOUNDED, TrainCall({"x": X}))


def test_calls_in_progress_finish_before_a_session_is_deleted(make_store: Any, dot: Any) -> None:
    store = make_store()
    session_id = store.create(UNBOUNDED, dot()).session_id
    session = store.get(session_id)
    with ThreadPoolExecutor(2) as pool:
        with session._turn.hold(UNBOUNDED):
            step = pool.submit(session.train_step, UNBOUNDED, TrainCall({"x": X}))
            while not session._turn._waiting:
                time.sleep(0.001)
            ended = pool.submit(store.delete, UNBOUNDED, session_id)
            while len(session._turn._waiting) < 2:
                time.sleep(0.001)
            assert store.get(session_id) is session
        assert step.result(10).result.step == 1
        ended.result(10)
    with pytest.raises(errors.SessionNotFound):
        store.get(session_id)
