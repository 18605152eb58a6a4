"""Which calls are computed together, which alone, and on whose processor."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sessions.training_calls import TRAIN, X, perform

pytest.importorskip("jax")

from tests.sessions.grouped import Gate, make

from backwire_server.sessions.caller import Caller
from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.store.store import SessionStore
from backwire_server.sessions.training import device_trainer
from backwire_server.sessions.turns.processors import Processors
from backwire_server.storage.vault import FileVault
from backwire_server.xla import cohort
from backwire_server.xla.group_step import GroupStep


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
