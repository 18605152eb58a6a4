"""Sessions whose steps are computed together do what each does alone, within rounding, and harm each other never."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sessions.training_calls import CALLS, TRAIN, X, perform

pytest.importorskip("jax")

from tests.sessions.grouped import Gate, Values, assert_same, make, waiting

from backwire_server import optim
from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.sessions.calls import NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.errors import Cancelled, MessageTooLarge, NonFiniteGradient, StepMismatch
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store.store import SessionStore
from backwire_server.sessions.turns.processors import Processors

Array = NDArray[Any]

CLASSES = Graph(
    inputs=(Input("x", TensorType.of("float32", ("batch", 3))), Input("t", TensorType.of("int64", ("batch",)))),
    parameters=(Parameter("w", TensorType.of("float32", (3, 4))),),
    nodes=(Node("MatMul", ("x", "w"), ("z",)), Node("SoftmaxCrossEntropyLoss", ("z", "t"), ("l",))),
    outputs={"z": "z"},
    loss="l",
)


def test_those_that_wait_are_computed_together_to_what_each_is_alone(
    store: SessionStore, make_store: Any, network: Any, values: Values, gate: Gate
) -> None:
    alone, specs = make_store(), [network(seed=seed) for seed in range(9)]
    expected, found = ([make(each, spec) for spec in specs] for each in (alone, store))
    calls = [replace(TRAIN, inputs={"x": X * (1 + at)}) for at in range(9)]
    for _ in range(2):
        told = [perform(session, call) for session, call in zip(expected, calls, strict=True)]
    acts = [partial(perform, session, call) for session, call in zip(found, calls, strict=True)]
    gate.together(acts[0], acts[1:], waiting)
    assert gate.sizes == [1, 8]
    for ours, theirs in zip([act() for act in acts], told, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert (ours.result.step, ours.result.gradient_norm) == (
            2,
            pytest.approx(theirs.result.gradient_norm, rel=1e-4),
        )
        np.testing.assert_allclose(ours.outputs["z2"], theirs.outputs["z2"], rtol=1e-3, atol=1e-5)
    for one, other in zip(expected, found, strict=True):
        assert_same(values, one, other)


def test_a_group_has_a_power_of_two_of_calls_and_the_rest_are_next(
    store: SessionStore, network: Any, gate: Gate
) -> None:
    sessions = [make(store, network(seed=seed)) for seed in range(8)]
    acts = [partial(perform, each, TRAIN) for each in sessions]
    gate.together(acts[0], acts[1:], waiting)
    assert gate.sizes == [1, 4, 2, 1]


def test_what_one_gets_does_not_depend_on_the_others(network: Any, values: Values, monkeypatch: Any) -> None:
    def bits_beside(scale: float) -> bytes:
        with monkeypatch.context() as patch:
            gate, store = Gate(patch), SessionStore(Limits(), grouped=True)
            sessions = [make(store, network(seed=seed)) for seed in range(3)]
            other = replace(TRAIN, inputs={"x": X * np.float32(scale)})
            acts = [partial(perform, sessions[1], TRAIN), partial(perform, sessions[2], other)]
            gate.together(partial(perform, sessions[0], TRAIN), acts, waiting)
            assert gate.sizes[:2] == [1, 2]
            found = values(sessions[1])["w1"].tobytes()
            store.close()
            return found

    assert len({bits_beside(scale) for scale in (1.0, -3.0, np.nan)}) == 1


@pytest.mark.parametrize("rule", [optim.Adam(), optim.Muon()])
def test_calls_of_all_kinds_lead_to_what_they_lead_to_with_numpy(
    store: SessionStore, make_session: Any, network: Any, values: Values, rule: optim.Rule
) -> None:
    spec = network(optim.Optimizer(0.1, rule))
    expected, found = make_session(spec), make(store, spec)
    for call in CALLS:
        for session in (expected, found):
            perform(session, call)
        assert_same(values, expected, found)


def test_a_branch_and_its_parent_go_their_own_ways(store: SessionStore, network: Any, values: Values) -> None:
    parent = make(store, network())
    perform(parent, TRAIN)
    before = values(parent)
    branch = store.get(store.fork(UNBOUNDED, parent.session_id).session_id)
    perform(parent, TRAIN)
    for name, array in values(branch).items():
        np.testing.assert_array_equal(array, before[name])
    perform(branch, TRAIN)
    assert branch.digest(UNBOUNDED) == parent.digest(UNBOUNDED)
    store.delete(UNBOUNDED, parent.session_id)
    make(store, network(seed=8))
    assert branch.digest(UNBOUNDED)


def test_a_branch_may_enter_while_its_parent_computes_alone(
    network: Any, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SessionStore(Limits(), processors=Processors(2), grouped=True)
    parent = make(store, network())
    perform(parent, TRAIN)
    branch = store.get(store.fork(UNBOUNDED, parent.session_id).session_id)
    trainer: Any = parent._keeper.content.trainer
    leave = trainer._leave

    def overtaken() -> None:
        leave()
        perform(branch, TRAIN)

    monkeypatch.setattr(trainer, "_groups", False)
    monkeypatch.setattr(trainer, "_leave", overtaken)
    perform(parent, TRAIN)
    assert_same(values, branch, parent)
    store.close()


def test_one_who_reads_while_others_step_has_what_was_there(store: SessionStore, network: Any) -> None:
    session = make(store, network())
    perform(session, TRAIN)
    with session.parameters(UNBOUNDED) as snapshot:
        arrays = dict(snapshot)
        before = {name: array.copy() for name, array in arrays.items()}
        perform(session, TRAIN)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, before[name])


def test_refusals_of_one_leave_it_as_it_was_and_harm_no_other(
    store: SessionStore, make_store: Any, values: Values, gate: Gate, scope: Any
) -> None:
    spec = SessionSpec(CLASSES, {"w": np.ones((3, 4), "f4")}, optim.Optimizer(0.5, optim.Sgd()))
    x, t = np.random.default_rng(1).normal(size=(5, 3)).astype("f4"), np.arange(5) % 4
    good, wrong_index = TrainCall({"x": x, "t": t}), TrainCall({"x": x, "t": np.full(5, 9)})
    not_finite = TrainCall(
        {"x": x * np.float32(np.nan), "t": t}, options=StepOptions(non_finite=NonFinitePolicy.REJECT)
    )
    gone = scope()
    sessions = [make(store, spec) for _ in range(5)]
    gate.armed = False
    for each in sessions:
        perform(each, good)
    gate.armed = True
    before = [each.digest(UNBOUNDED) for each in sessions]
    calls = [good, wrong_index, not_finite, good, good]
    scopes = [UNBOUNDED, UNBOUNDED, UNBOUNDED, gone, UNBOUNDED]
    acts = [partial(perform, *each) for each in zip(sessions, calls, scopes, strict=True)]

    def leaving() -> list[Any]:
        if len(found := waiting()) == 4:
            gone.cancelled.set()
        return found

    found = gate.together(acts[0], acts[1:], leaving)
    assert [type(each) for each in found[1:4]] == [InvalidValue, NonFiniteGradient, Cancelled]
    after = [each.digest(UNBOUNDED) for each in sessions]
    assert after[1:4] == before[1:4]
    expected = make(make_store(), spec)
    for _ in range(2):
        perform(expected, good)
    for at in (0, 4):
        assert found[at].result.step == 2
        assert_same(values, expected, sessions[at])


def test_an_answer_that_is_too_large_is_refused_before_anything_changes(network: Any) -> None:
    store = SessionStore(Limits(max_message_bytes=1_100), grouped=True)
    session = make(store, network())
    before = session.digest(UNBOUNDED)
    with pytest.raises(MessageTooLarge):
        perform(session, TRAIN)
    assert session.digest(UNBOUNDED) == before
    store.close()


def test_a_step_that_was_not_expected_is_refused(store: SessionStore, network: Any, gate: Gate) -> None:
    with pytest.raises(StepMismatch):
        perform(make(store, network()), replace(TRAIN, options=StepOptions(expected_step=3)))
    assert gate.sizes == []
