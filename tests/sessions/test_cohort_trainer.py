"""Sessions whose steps are computed together do what each does alone, within rounding, and harm each other never."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sessions.training_calls import CALLS, TRAIN, X, perform

pytest.importorskip("jax")

from backwire_server import optim
from backwire_server.engine.errors import InvalidValue
from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
from backwire_server.sessions import device_trainer
from backwire_server.sessions.caller import Caller
from backwire_server.sessions.calls import NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.durable import Durability
from backwire_server.sessions.errors import Cancelled, MessageTooLarge, NonFiniteGradient, StepMismatch
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.processors import Processors
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store import SessionStore
from backwire_server.storage.vault import FileVault
from backwire_server.xla import cohort
from backwire_server.xla.group_step import GroupStep

Array = NDArray[Any]
Values = Callable[[Session], dict[str, Array]]
CLASSES = Graph(
    inputs=(Input("x", TensorType.of("float32", ("batch", 3))), Input("t", TensorType.of("int64", ("batch",)))),
    parameters=(Parameter("w", TensorType.of("float32", (3, 4))),),
    nodes=(Node("MatMul", ("x", "w"), ("z",)), Node("SoftmaxCrossEntropyLoss", ("z", "t"), ("l",))),
    outputs={"z": "z"},
    loss="l",
)


class Gate:
    """Holds the first group until so many calls have asked, and notes how large all groups were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.armed = True
        self.open = threading.Event()
        self.reached = threading.Event()
        compute = GroupStep.compute

        def held(step: GroupStep, cohort: Any, members: Sequence[Any]) -> Any:
            if self.armed:
                self.sizes.append(len(members))
            if len(self.sizes) == 1:
                self.reached.set()
                assert self.open.wait(60)
            return compute(step, cohort, members)

        monkeypatch.setattr(GroupStep, "compute", held)

    def together(self, first: Callable[[], Any], others: Sequence[Callable[[], Any]], waiting: Any) -> list[Any]:
        """Returns what the calls return or raise, of which all but the first wait while the first is computed."""
        with ThreadPoolExecutor(1 + len(others)) as pool:
            futures = [pool.submit(first)]
            assert self.reached.wait(60)
            futures += [pool.submit(each) for each in others]
            while len(waiting()) < len(others):
                threading.Event().wait(0.001)
            self.open.set()
            return [future.exception() or future.result() for future in futures]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def store() -> Iterator[SessionStore]:
    made = SessionStore(Limits(), grouped=True)
    yield made
    made.close()


def on_jax(spec: SessionSpec) -> SessionSpec:
    return replace(spec, executor=Executor.JAX)


def make(store: SessionStore, spec: SessionSpec) -> Session:
    return store.get(store.create(UNBOUNDED, on_jax(spec)).session_id)


def waiting() -> list[Any]:
    from backwire_server.sessions.line import _LINES

    return [seat for line in list(_LINES.values()) for seat in list(line._waiting)]


def assert_same(values: Values, first: Session, second: Session) -> None:
    expected, found = values(first), values(second)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


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


def test_frozen_parameters_are_computed_alone(store: SessionStore, dot: Any, gate: Gate) -> None:
    result = perform(make(store, dot()), TrainCall({"x": np.ones(3)}))
    assert (result.result.step, gate.sizes) == (1, [])


def test_batches_of_those_who_may_step_together_are_not_sent_ahead(
    store: SessionStore, network: Any, dot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_trainer, "STAGED_BYTES", 1)
    together, alone = TrainCall({"x": X}), TrainCall({"x": np.ones(3)})
    make(store, network()).stage(together)
    make(store, dot()).stage(alone)
    assert (list(together.staged), list(alone.staged)) == ([], ["x"])


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


def test_what_cannot_be_computed_together_is_computed_one_by_one(
    store: SessionStore, network: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Any:
        raise NotImplementedError("no rule for batches")

    monkeypatch.setattr(GroupStep, "_stacked", failing)
    session = make(store, replace(network(), graph=replace(network().graph, outputs={"z": "z2"})))
    call = replace(TRAIN, outputs=("z",))
    assert [perform(session, call).result.step for _ in range(2)] == [1, 2]
    assert [record.message for record in caplog.records].count(
        "1 sessions cannot be computed together; they are computed one by one"
    ) == 1


def test_large_states_are_computed_alone_on_a_processor(
    store: SessionStore, network: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    for nbytes, groups in ((4 * 3 * 30 - 1, 0), (4 * 3 * 30, 1)):
        monkeypatch.setattr(cohort, "SMALL_BYTES", nbytes)
        assert perform(make(store, network()), TRAIN).result.step == 1
        assert len(gate.sizes) == groups


def test_a_call_that_another_tenant_computes_needs_no_processor(network: Any, gate: Gate) -> None:
    processors = Processors(1)
    store = SessionStore(Limits(), processors=processors, grouped=True)
    callers = [Unbounded(Caller(tenant=name)) for name in ("a", "b")]
    sessions = [make(store, network(seed=seed)) for seed in range(2)]
    busy = [processors.turn(each) for each in callers]
    for turn in busy:
        turn.__enter__()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(perform, *each) for each in zip(sessions, [TRAIN] * 2, callers, strict=True)]
        while processors.waiting < 2:
            threading.Event().wait(0.001)
        busy[0].__exit__()
        assert gate.reached.wait(60)
        assert (gate.sizes, processors.waiting) == ([2], 0)
        gate.open.set()
        assert [future.result().result.step for future in futures] == [1, 1]
    busy[1].__exit__()
    store.close()


def test_sessions_are_grouped_that_are_on_jax_and_kept_in_memory(tmp_path: Path, network: Any, gate: Gate) -> None:
    gate.open.set()
    vault = FileVault(tmp_path, default=Durability.JOURNAL, limits=Limits())
    store = SessionStore(Limits(), vault=vault, grouped=True)
    for executor, durability, groups in (
        (Executor.NUMPY, Durability.MEMORY, 0),
        (Executor.JAX, Durability.JOURNAL, 0),
        (Executor.JAX, Durability.MEMORY, 2),
    ):
        made = store.create(UNBOUNDED, replace(network(), executor=executor), durability=durability).session_id
        for each in (made, store.fork(UNBOUNDED, made).session_id):
            perform(store.get(each), TRAIN)
        assert len(gate.sizes) == groups
    store.close()
