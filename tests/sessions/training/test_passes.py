"""Passes are bounded by count, bytes and age, and never see a later value of a parameter."""

import time
from typing import Any

import numpy as np
import pytest

from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

X = np.array([1.0, -2.0, 4.0])
TABLE = np.array([10.0, 20.0, 30.0])


def forward(session: Session, **call: Any) -> str:
    return session.forward(UNBOUNDED, ForwardCall({"x": X}, **call)).forward_id


def held(session: Session) -> int:
    return session._keeper._account._held


def pass_bytes(session: Session) -> int:
    """What one more pass costs this session."""
    before = held(session)
    name = forward(session)
    cost = held(session) - before
    session.backward(UNBOUNDED, BackwardCall(name))
    session.zero_gradients(UNBOUNDED)
    return cost


def test_backward_frees_the_pass_unless_it_is_retained(session: Session) -> None:
    name = forward(session)
    session.backward(UNBOUNDED, BackwardCall(name, retain=True))
    assert session.info().forward_ids == (name,)
    session.backward(UNBOUNDED, BackwardCall(name))
    assert session.info().forward_ids == ()
    with pytest.raises(errors.PassExpired, match="its Backward used it up"):
        session.backward(UNBOUNDED, BackwardCall(name))


def test_a_pass_that_never_was_is_not_found(session: Session) -> None:
    with pytest.raises(errors.PassNotFound):
        session.backward(UNBOUNDED, BackwardCall("nope"))


def test_the_caller_may_name_passes(session: Session) -> None:
    assert forward(session, forward_id="mine") == "mine"
    with pytest.raises(errors.PassExists):
        forward(session, forward_id="mine")
    session.backward(UNBOUNDED, BackwardCall("mine"))
    assert forward(session, forward_id="mine") == "mine"
    session.backward(UNBOUNDED, BackwardCall("mine"))


def test_names_that_the_server_chooses_avoid_those_of_the_caller(session: Session) -> None:
    forward(session, forward_id="pass-1")
    name = forward(session)
    assert name != "pass-1"
    assert session.info().forward_ids == ("pass-1", name)


def test_the_oldest_pass_makes_way_for_one_too_many(make_session: Any) -> None:
    session = make_session(max_passes=2)
    first, second, third = (forward(session) for _ in range(3))
    assert session.info().forward_ids == (second, third)
    with pytest.raises(errors.PassExpired, match="keeps 2"):
        session.backward(UNBOUNDED, BackwardCall(first))


def test_the_oldest_passes_make_way_for_too_many_bytes(make_session: Any) -> None:
    cost = pass_bytes(make_session())
    session = make_session(max_pass_bytes=2 * cost)
    first, second, third = (forward(session) for _ in range(3))
    assert session.info().forward_ids == (second, third)
    with pytest.raises(errors.PassExpired, match="may hold"):
        session.backward(UNBOUNDED, BackwardCall(first))


def test_a_pass_that_is_too_large_alone_is_refused_and_leaves_the_others(make_session: Any) -> None:
    session = make_session(max_pass_bytes=pass_bytes(make_session()) - 1)
    for _ in range(2):
        with pytest.raises(errors.PassTooLarge) as caught:
            forward(session)
        assert caught.value.quota == "max_pass_bytes"
    with pytest.raises(errors.PassTooLarge):
        session.train_step(UNBOUNDED, TrainCall({"x": X}))
    assert session.info().step == 0


@pytest.mark.parametrize(("later", "listed"), [(30.0, True), (61.0, False)])
def test_a_pass_is_listed_until_it_is_too_old(
    make_session: Any, monkeypatch: pytest.MonkeyPatch, later: float, *, listed: bool
) -> None:
    session = make_session(pass_ttl=60.0)
    name, now = forward(session), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + later)
    assert session.info().forward_ids == ((name,) if listed else ())


def test_a_pass_expires_by_age(make_session: Any) -> None:
    session = make_session(pass_ttl=0.05)
    name = forward(session)
    time.sleep(0.06)
    assert session.info().forward_ids == ()
    with pytest.raises(errors.PassExpired, match=r"0\.05 s"):
        session.backward(UNBOUNDED, BackwardCall(name))


def test_the_sweep_frees_old_passes_that_nobody_asks_for(make_session: Any) -> None:
    session = make_session(pass_ttl=0.05)
    before = held(session)
    forward(session)
    assert held(session) > before
    time.sleep(0.06)
    assert session.sweep() is False
    assert held(session) == before


def test_a_pass_goes_on_with_the_values_it_was_made_with(session: Session) -> None:
    old = forward(session)
    session.train_step(UNBOUNDED, TrainCall({"x": X}))
    new = forward(session)
    session.train_step(UNBOUNDED, TrainCall({"x": X}))
    for name, w in ((old, np.array([1.0, 2.0, 3.0])), (new, [1, 2, 3] - 0.5 * X)):
        result = session.backward(UNBOUNDED, BackwardCall(name, wrt=("x",)))
        np.testing.assert_array_equal(result.input_gradients["x"], w + TABLE)


def test_old_values_that_passes_keep_alive_count_as_their_bytes(make_session: Any) -> None:
    cost = pass_bytes(make_session())
    parameter = np.zeros(3).nbytes
    session = make_session(max_pass_bytes=2 * cost + parameter)
    first, second = forward(session), forward(session)
    session.train_step(UNBOUNDED, TrainCall({"x": X}))
    assert session.info().forward_ids == (first, second), "both share one old version"
    third = forward(session)
    session.train_step(UNBOUNDED, TrainCall({"x": X}))
    assert session.info().forward_ids == (third,), "two old versions and three passes do not fit"
    result = session.backward(UNBOUNDED, BackwardCall(third, wrt=("x",)))
    np.testing.assert_array_equal(result.input_gradients["x"], [1, 2, 3] - 0.5 * X + [10, 20, 30])


def test_frozen_values_that_passes_keep_alive_count_too(make_session: Any) -> None:
    session = make_session()
    name = forward(session)
    before = held(session)
    session.set_parameters(UNBOUNDED, {"c": np.zeros(3)})
    assert held(session) == before + np.zeros(3).nbytes
    session.backward(UNBOUNDED, BackwardCall(name))
    assert held(session) < before


def test_a_refused_step_expires_no_pass(make_session: Any) -> None:
    session = make_session(max_pass_bytes=pass_bytes(make_session()))
    name = forward(session)
    session.backward(UNBOUNDED, BackwardCall(name, retain=True))
    with pytest.raises(errors.StepMismatch):
        session.step(UNBOUNDED, StepOptions(expected_step=5))
    assert session.info().forward_ids == (name,)
    session.step(UNBOUNDED, StepOptions())
    assert session.info().forward_ids == (), "the old parameters no longer fit beside the pass"
