"""A repeated mutation is answered and not applied again, as far as the window reaches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.requests import RequestKey, RequestLog
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

X = np.array([1.0, -2.0, 4.0])


@dataclass
class Answer:
    nbytes: int = 1


def key(name: str, content: bytes = b"") -> RequestKey:
    return RequestKey(name, content)


def test_the_first_answer_comes_again() -> None:
    log = RequestLog()
    answer = Answer()
    log.record(key("a"), answer)
    assert log.find(key("a")) is answer
    assert log.find(key("b")) is None
    assert log.find(None) is None


def test_another_content_under_the_same_id_is_refused() -> None:
    log = RequestLog()
    log.record(key("a", b"one"), Answer())
    with pytest.raises(errors.RequestIdReused):
        log.find(key("a", b"two"))


def test_the_window_forgets_the_oldest() -> None:
    log = RequestLog(window=2)
    for name in "abc":
        log.record(key(name), Answer())
    assert [key.request_id for key, _ in log.entries()] == ["b", "c"]
    assert log.find(key("a")) is None
    assert log.nbytes == 2


def test_answers_that_do_not_fit_go_oldest_first_and_their_requests_stay_known() -> None:
    log = RequestLog(max_answer_bytes=10)
    for name in "abc":
        log.record(key(name), Answer(4))
    with pytest.raises(errors.ResultNotRetained):
        log.find(key("a"))
    assert log.find(key("b")) is not None
    log.record(key("d"), Answer(11))
    for name in "abcd":
        with pytest.raises(errors.ResultNotRetained):
            log.find(key(name))
    assert log.nbytes == 0


@pytest.mark.parametrize("verb", ["forward", "backward", "step", "train", "set", "zero"])
def test_every_mutation_of_a_session_is_applied_once(session: Session, verb: str, values: Any, gradients: Any) -> None:
    name = session.forward(UNBOUNDED, ForwardCall({"x": X})).forward_id
    session.backward(UNBOUNDED, BackwardCall(name, retain=True))
    calls: dict[str, Any] = {
        "forward": lambda k: session.forward(UNBOUNDED, ForwardCall({"x": X}, forward_id="named"), k),
        "backward": lambda k: session.backward(UNBOUNDED, BackwardCall(name), k),
        "step": lambda k: session.step(UNBOUNDED, StepOptions(), k),
        "train": lambda k: session.train_step(UNBOUNDED, TrainCall({"x": X}), k),
        "set": lambda k: session.set_parameters(UNBOUNDED, {"w": np.zeros(3)}, k),
        "zero": lambda k: session.zero_gradients(UNBOUNDED, k),
    }
    first = calls[verb](key("id"))
    state = session.info().step, session.info().contributions, session.info().forward_ids
    contents = values(session)["w"].tobytes(), gradients(session)["w"].tobytes()
    assert calls[verb](key("id")) is first
    assert (session.info().step, session.info().contributions, session.info().forward_ids) == state
    assert (values(session)["w"].tobytes(), gradients(session)["w"].tobytes()) == contents
    with pytest.raises(errors.RequestIdReused):
        calls[verb](key("id", b"other"))


def test_a_failed_request_is_not_remembered(session: Session) -> None:
    with pytest.raises(errors.NoGradients):
        session.step(UNBOUNDED, StepOptions(), key("id"))
    name = session.forward(UNBOUNDED, ForwardCall({"x": X})).forward_id
    session.backward(UNBOUNDED, BackwardCall(name))
    assert session.step(UNBOUNDED, StepOptions(), key("id")).step == 1


def test_a_repeated_step_is_answered_although_the_expected_step_has_passed(session: Session) -> None:
    options = StepOptions(expected_step=0)
    first = session.train_step(UNBOUNDED, TrainCall({"x": X}, options=options), key("id"))
    session.train_step(UNBOUNDED, TrainCall({"x": X}))
    assert session.train_step(UNBOUNDED, TrainCall({"x": X}, options=options), key("id")) is first
