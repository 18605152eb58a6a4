"""Those who look on see what steps gave and how sessions are doing, and leave no trace."""

import math
import threading
import time
from typing import Any

import numpy as np
import pytest

from backwire_server.engine.graph import Graph, Node
from backwire_server.sessions import errors
from backwire_server.sessions.caller import Caller, Scope
from backwire_server.sessions.calls import (
    BackwardCall,
    ForwardCall,
    NonFinitePolicy,
    StepOptions,
    StepResult,
    TrainCall,
)
from backwire_server.sessions.history import KEPT, SHORT, History
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.status import SessionState

X = np.array([1.0, -2.0, 4.0])
NORM = math.sqrt(1 + 4 + 16)


def train(session: Session, count: int = 1, **options: Any) -> None:
    for _ in range(count):
        session.train_step(UNBOUNDED, TrainCall({"x": X}, options=StepOptions(**options)))


def result(step: int) -> StepResult:
    return StepResult(step, gradient_norm=step / 2, learning_rate=0.1, contributions=1)


def test_a_step_is_kept_with_the_loss_before_it(session: Session) -> None:
    first = session.forward(UNBOUNDED, ForwardCall({"x": X}))
    session.backward(UNBOUNDED, BackwardCall(first.forward_id))
    session.step(UNBOUNDED, StepOptions(learning_rate=0.25))
    train(session)
    records, _ = session.history.since()
    assert [each.step for each in records] == [1, 2]
    assert [each.learning_rate for each in records] == [0.25, 0.5]
    assert [each.gradient_norm for each in records] == [NORM, NORM]
    assert records[0].loss == first.loss
    assert records[0].time <= records[1].time
    assert (session.history.steps, session.history.loss) == (2, records[1].loss)


def test_a_repeated_request_and_an_evaluation_are_no_steps(session: Session) -> None:
    call, key = TrainCall({"x": X}), RequestKey("once", b"")
    loss = session.train_step(UNBOUNDED, call, key).loss
    session.train_step(UNBOUNDED, call, key)
    session.evaluate(UNBOUNDED, ForwardCall({"x": X}))
    assert (session.history.steps, session.history.loss) == (1, loss)


def test_a_refused_step_leaves_no_record_and_a_skipped_one_does(session: Session) -> None:
    bad = TrainCall({"x": X * np.nan})
    with pytest.raises(errors.NonFiniteGradient):
        session.train_step(UNBOUNDED, bad)
    assert session.history.since() == ([], "")
    session.train_step(UNBOUNDED, TrainCall(bad.inputs, options=StepOptions(non_finite=NonFinitePolicy.SKIP)))
    (record,), _ = session.history.since()
    assert record.step == 0
    assert math.isnan(record.gradient_norm)
    assert record.loss is not None
    assert math.isnan(record.loss), "a loss that is NaN is no missing loss"


def test_a_graph_without_loss_has_steps_without_loss(make_session: Any, dot: Any) -> None:
    spec = dot()
    nodes: tuple[Node, ...] = spec.graph.nodes[:2]
    graph = Graph(inputs=spec.graph.inputs, parameters=spec.graph.parameters, nodes=nodes, outputs={"y": "y"})
    session = make_session(SessionSpec(graph, spec.sources, spec.optimizer))
    found = session.forward(UNBOUNDED, ForwardCall({"x": X}))
    session.backward(UNBOUNDED, BackwardCall(found.forward_id, {"y": X}))
    session.step(UNBOUNDED, StepOptions())
    assert [each.loss for each in session.history.since()[0]] == [None]


def test_the_last_steps_are_kept_in_order() -> None:
    history = History()
    for step in range(1, 2 * KEPT + 3):
        history.note(result(step))
    records, _ = history.since()
    assert [each.step for each in records] == list(range(KEPT + 3, 2 * KEPT + 3))
    assert history.steps == 2 * KEPT + 2


@pytest.mark.parametrize("done", [1, SHORT, SHORT + 1, 2 * SHORT + 3, KEPT, 3 * KEPT + 7])
def test_one_that_was_shortened_has_the_last_steps_and_grows_again(done: int) -> None:
    history = History()
    for step in range(1, done + 1):
        history.note(result(step))
    assert history.long == (done > SHORT)
    _, cursor = history.since()
    history.shorten()
    assert not history.long
    assert [each.step for each in history.since()[0]] == list(range(max(1, done - SHORT + 1), done + 1))
    for step in range(done + 1, done + 2 * KEPT):
        history.note(result(step))
        first = max(1, done - SHORT + 1, step - KEPT + 1)
        if step % 37 == 0 or step < done + 3:
            assert [each.step for each in history.since()[0]] == list(range(first, step + 1))
    assert history.since(cursor)[0][0].step == done + KEPT
    assert history.steps == done + 2 * KEPT - 1


def test_a_cursor_gives_only_what_came_after() -> None:
    history = History()
    history.note(result(1))
    _, cursor = history.since()
    assert history.since(cursor) == ([], cursor)
    history.note(result(2))
    history.note(result(3))
    records, after = history.since(cursor)
    assert [each.step for each in records] == [2, 3]
    assert history.since(after) == ([], after)


@pytest.mark.parametrize("cursor", ["x", "\0", "7", "-1", "٣", "9" * 5_000])
def test_any_other_cursor_gives_all(cursor: str) -> None:
    history = History()
    history.note(result(1))
    tag = history.since()[1][:-1]
    for given in (cursor, tag + "x" + cursor, tag + "9" * 19):
        assert [each.step for each in history.since(given)[0]] == [1]


def test_readers_see_whole_records_while_steps_are_done() -> None:
    history, done = History(), threading.Event()

    def write() -> None:
        for step in range(1, 20_000):
            history.note(result(step))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    cursor, seen = "", 0
    while not done.is_set():
        records, cursor = history.since(cursor)
        steps = [each.step for each in records]
        assert steps == list(range(steps[0], steps[-1] + 1) if steps else [])
        assert all(each.gradient_norm == each.step / 2 for each in records)
        assert min(steps, default=seen + 1) > seen
        seen = max(steps, default=seen)
    writer.join()
    assert history.since()[0][-1].step == 19_999


def test_an_overview_tells_those_used_last_first(make_store: Any, dot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()
    ids = [store.create(UNBOUNDED, dot()).session_id for _ in range(3)]
    train(store.get(ids[1]))
    found = store.overview(2)
    assert (found.count, found.awake, len(found.sessions)) == (3, 3, 2)
    assert found.sessions[0].session_id == ids[1]
    assert (found.sessions[0].step, found.sessions[0].steps, found.sessions[0].gradient_norm) == (1, 1, NORM)
    assert found.sessions[1].loss is None
    assert found.nbytes == store.budget.used > 0
    set_back = time.time() - 3_600.0
    with monkeypatch.context() as changed:
        changed.setattr(time, "time", lambda: set_back)
        train(store.get(ids[0]))
    assert [each.session_id for each in store.overview(2).sessions] == [ids[0], ids[1]]
    with pytest.raises(errors.InvalidRequest, match="max_sessions is -1"):
        store.overview(-1)


def test_an_overview_is_of_the_callers_own_sessions(make_store: Any, dot: Any, scope: Any) -> None:
    store = make_store()
    scopes = [scope(), scope()]
    acme, umbrella = (Caller("one", tenant, Scope.WRITE) for tenant in ("acme", "umbrella"))
    scopes[0].caller, scopes[1].caller = acme, umbrella
    ids = [store.create(each, dot()).session_id for each in scopes]
    assert [each.session_id for each in store.overview(caller=acme).sessions] == ids[:1]
    assert store.overview(caller=umbrella).count == 1
    assert store.overview().count == 2
    with pytest.raises(errors.SessionNotFound):
        store.look(ids[0], umbrella)


def test_looking_on_waits_for_nobody_and_is_no_use(make_store: Any, dot: Any, scope: Any) -> None:
    store = make_store()
    session = store.get(store.create(UNBOUNDED, dot()).session_id)
    session.forward(UNBOUNDED, ForwardCall({"x": X}))
    before = session.last_used, session.idle_since
    with session.my_turn(scope()):
        used = session.last_used
        (status,) = store.overview().sessions
        assert store.look(session.session_id).history.since() == ([], "")
        assert (status.state, status.passes, status.last_used) == (SessionState.AWAKE, 1, used)
    assert before < (session.last_used, session.idle_since), "it was the turn that used it"
    before = session.last_used, session.idle_since
    store.overview()
    store.look(session.session_id)
    assert (session.last_used, session.idle_since) == before
