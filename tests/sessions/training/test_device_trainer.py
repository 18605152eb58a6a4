"""A session whose steps a device computes whole does what one of numpy does, within rounding."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sessions.training_calls import CALLS, TRAIN, perform

pytest.importorskip("jax")

from backwire_server import optim
from backwire_server.engine.narrow import HALF
from backwire_server.optim import OptimizerState
from backwire_server.sessions.calls import NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.errors import Cancelled, NonFiniteGradient
from backwire_server.sessions.executors import DEVICES, Executor
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training import device_trainer
from backwire_server.sessions.training.trainer import Trainer
from backwire_server.sessions.training.versions import MemoryVersion

Array = NDArray[Any]

Make = Callable[..., Session]

Values = Callable[[Session], dict[str, Array]]


@pytest.fixture
def pair(make_session: Make, network: Callable[..., SessionSpec]) -> Callable[..., tuple[Session, Session]]:
    """Makes a session of numpy and one of JAX that are equal otherwise."""

    def make(optimizer: optim.Optimizer | None = None) -> tuple[Session, Session]:
        first, second = (make_session(replace(network(optimizer), executor=each)) for each in Executor)
        return first, second

    return make


def assert_same(sessions: tuple[Session, Session], values: Values) -> None:
    expected, found = map(values, sessions)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_calls_of_all_kinds_lead_to_what_they_lead_to_with_numpy(pair: Any, values: Values) -> None:
    sessions = pair()
    for call in CALLS:
        expected, found = (perform(session, call) for session in sessions)
        if isinstance(call, TrainCall):
            assert found.loss == pytest.approx(expected.loss, rel=1e-4)
            assert found.result.gradient_norm == pytest.approx(expected.result.gradient_norm, rel=1e-4)
            np.testing.assert_allclose(found.outputs["z2"], expected.outputs["z2"], rtol=1e-3, atol=1e-5)
        assert_same(sessions, values)


def test_a_rule_that_is_not_traced_steps_all_the_same(pair: Any, values: Values) -> None:
    sessions = pair(optim.Optimizer(0.1, optim.Muon()))
    for session in sessions:
        perform(session, TRAIN)
    assert_same(sessions, values)


def test_steps_use_the_memory_of_two_states_in_turns(pair: Any) -> None:
    _, session = pair()
    places = []
    for _ in range(6):
        perform(session, TRAIN)
        with session.my_turn(UNBOUNDED) as keeper:
            places.append(keeper.content.trainer.parameters.current.elsewhere[0].unsafe_buffer_pointer())
    assert places[2:4] == places[4:6]
    assert len(set(places[2:])) == 2


def test_steps_whose_loss_is_scaled_are_whole_too(make_session: Make, network: Any, values: Values) -> None:
    spec = network()
    spec = replace(spec, graph=replace(spec.graph, precision=HALF))
    sessions = [make_session(replace(spec, executor=each)) for each in Executor]
    told = [[perform(session, TRAIN).result for _ in range(8)] for session in sessions]
    first, second = ([(each.step, each.skipped, each.loss_scale) for each in results] for results in told)
    assert first == second
    assert {each.skipped for each in told[1]} == {True, False}
    with sessions[1].my_turn(UNBOUNDED) as keeper:
        assert not told[1][-1].skipped
        assert keeper.content.trainer.parameters.current.elsewhere is not None
    expected, found = map(values, sessions)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0.01, atol=0.001)


def test_a_branch_and_its_parent_go_their_own_ways(make_store: Any, network: Any, values: Values) -> None:
    store = make_store()
    parent = store.get(store.create(UNBOUNDED, replace(network(), executor=Executor.JAX)).session_id)
    perform(parent, TRAIN)
    before = values(parent)
    branch = store.get(store.fork(UNBOUNDED, parent.session_id).session_id)
    perform(parent, TRAIN)
    for name, array in values(branch).items():
        np.testing.assert_array_equal(array, before[name])
    perform(branch, TRAIN)
    assert branch.digest(UNBOUNDED) == parent.digest(UNBOUNDED)


def test_what_a_branch_has_fetched_in_between_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    held: OptimizerState = {}
    looks: Iterator[Any] = iter([lambda: held])  # after that a branch has put it there
    between = property(lambda _: next(looks, held), lambda *_: None)
    monkeypatch.setattr(MemoryVersion, "_state", between)
    assert MemoryVersion({}, 0).state is held


@pytest.mark.parametrize("policy", NonFinitePolicy)
def test_gradients_that_are_not_finite_are_treated_as_by_numpy(
    make_session: Make, dot: Any, values: Values, policy: NonFinitePolicy
) -> None:
    sessions = [make_session(replace(dot(), executor=each)) for each in Executor]
    wrong = TrainCall({"x": np.array([1.0, np.nan, 1.0])}, options=StepOptions(non_finite=policy))
    results = []
    for session in sessions:
        perform(session, TrainCall({"x": np.ones(3)}))
        digest = session.digest(UNBOUNDED)
        if policy is NonFinitePolicy.REJECT:
            with pytest.raises(NonFiniteGradient, match="'w'"):
                perform(session, wrong)
            assert session.digest(UNBOUNDED) == digest
        else:
            results.append(perform(session, wrong).result)
        perform(session, TrainCall({"x": np.ones(3)}))
    assert len({(each.skipped, each.step, each.non_finite_parameter) for each in results}) <= 1
    expected, found = map(values, sessions)
    np.testing.assert_array_equal(found["w"], expected["w"])


@pytest.mark.parametrize("policy", [NonFinitePolicy.REJECT, NonFinitePolicy.SKIP])
def test_a_step_that_is_not_applied_is_in_one_piece_too(
    make_session: Make, dot: Any, policy: NonFinitePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(replace(dot(), executor=Executor.JAX))
    perform(session, TrainCall({"x": np.ones(3)}))
    monkeypatch.delattr(Trainer, "train")
    wrong = TrainCall({"x": np.array([1.0, np.inf, 1.0])}, options=StepOptions(non_finite=policy))
    if policy is NonFinitePolicy.REJECT:
        with pytest.raises(NonFiniteGradient, match="'w'"):
            perform(session, wrong)
    else:
        skipped = perform(session, wrong).result
        assert (skipped.skipped, skipped.step, skipped.non_finite_parameter) == (True, 1, "w")
        assert skipped.gradient_norm == np.inf
    assert perform(session, TrainCall({"x": np.ones(3)})).result.step == 2


def test_only_steps_in_one_piece_have_their_batches_sent_ahead(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_trainer, "STAGED_BYTES", 1)
    _, session = pair()
    perform(session, TRAIN)
    waiting = StepOptions(after_contributions=2)
    changes: list[dict[str, Any]] = [{}, {"weight": 2.0}, {"data_parallel": 2}, {"options": waiting}]
    calls = [replace(TRAIN, staged={}, **each) for each in changes]
    for call in calls:
        session.stage(call)
    assert [sorted(call.staged) for call in calls] == [["x"], [], [], []]


def test_a_rate_that_leaves_the_range_later_fails_no_step_before(make_session: Make, dot: Any) -> None:
    optimizer = optim.Optimizer(1e-200, optim.Sgd(), schedule=optim.ExponentialSchedule(1e200))
    for executor in Executor:
        session = make_session(replace(dot(), optimizer=optimizer, executor=executor))
        steps = [perform(session, TrainCall({"x": np.ones(3)})).result.step for _ in range(2)]
        assert steps == [1, 2]


def test_a_caller_that_is_gone_changes_nothing(pair: Any, scope: Any) -> None:
    _, session = pair()
    perform(session, TRAIN)
    digest = session.digest(UNBOUNDED)
    gone = scope()
    with session.my_turn(UNBOUNDED) as keeper:
        gone.cancelled.set()
        with pytest.raises(Cancelled):
            keeper.perform(TRAIN, None, gone)
    assert session.digest(UNBOUNDED) == digest
    perform(session, TRAIN)


def test_memory_of_each_device_counts(network: Callable[..., SessionSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = network()
    trainable = 4 * (20 + 10)
    for count in (1, 4):
        monkeypatch.setattr(DEVICES, "count", count)
        assert replace(spec, executor=Executor.JAX).state_bytes == spec.state_bytes + count * 2 * trainable * 3
