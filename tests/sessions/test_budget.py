"""The bytes of all sessions: what would be too much is refused before it is taken, and what goes is given back."""

from typing import Any

import numpy as np
import pytest

from backwire_server.engine.graph import Graph, Parameter, TensorType
from backwire_server.sessions import errors
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.calls import ForwardCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.initializers import Distribution, Initializer

X = np.array([1.0, -2.0, 4.0])


def huge(count: int) -> SessionSpec:
    """A session whose parameter would take `count` doubles, were it drawn."""
    type_ = TensorType.of(np.float64, (count,))
    drawn = Initializer(type_.dtype, (count,), Distribution.NORMAL)
    return SessionSpec(Graph(parameters=(Parameter("w", type_),), outputs={"w": "w"}), {"w": drawn})


def test_parameters_too_large_are_refused_before_they_are_drawn(make_store: Any) -> None:
    with pytest.raises(errors.GraphTooLarge):
        make_store(max_parameter_bytes=1 << 20).create(UNBOUNDED, huge(1 << 40))


def test_a_session_that_the_budget_cannot_bear_is_refused_before_memory_is_taken(make_store: Any, dot: Any) -> None:
    sessions = make_store(max_parameter_bytes=1 << 60, max_total_bytes=1 << 20)
    with pytest.raises(errors.OutOfMemory):
        sessions.create(UNBOUNDED, huge(1 << 40))
    assert sessions.budget.used == 0
    sessions.create(UNBOUNDED, dot())


def test_the_budget_is_shared_and_given_back(make_store: Any, dot: Any) -> None:
    sessions = make_store()
    first = sessions.create(UNBOUNDED, dot()).session_id
    alone = sessions.budget.used
    second = sessions.create(UNBOUNDED, dot()).session_id
    assert sessions.budget.used == 2 * alone
    sessions.get(first).forward(UNBOUNDED, ForwardCall({"x": X}))
    assert sessions.budget.used > 2 * alone
    sessions.delete(UNBOUNDED, first)
    sessions.delete(UNBOUNDED, second)
    assert sessions.budget.used == 0


def test_a_pass_that_the_budget_cannot_bear_is_refused(make_store: Any, dot: Any) -> None:
    probe = make_store()
    session = probe.get(probe.create(UNBOUNDED, dot()).session_id)
    state = probe.budget.used
    session.forward(UNBOUNDED, ForwardCall({"x": X}))
    cost = probe.budget.used - state
    sessions = make_store(max_total_bytes=state + cost + 64)  # enough for one to be computed
    session = sessions.get(sessions.create(UNBOUNDED, dot()).session_id)
    session.forward(UNBOUNDED, ForwardCall({"x": X}, forward_id="kept"))
    with pytest.raises(errors.OutOfMemory):
        session.forward(UNBOUNDED, ForwardCall({"x": X}))
    assert session.info().forward_ids == ("kept",)
    assert sessions.budget.used == state + cost


def test_an_account_settles_what_did_not_work_out() -> None:
    budget = Budget(100)
    account, other = budget.account(), budget.account()
    account.reserve(60)
    with pytest.raises(errors.OutOfMemory):
        other.reserve(41)
    account.settle(10)
    other.reserve(90)
    assert budget.used == 100
