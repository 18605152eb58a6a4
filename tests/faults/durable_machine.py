"""Durable sessions in a store of this process, and all that trains them, beside `durable_model`."""

import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.faults.durable_model import Array, Kept, new_model, spec
from tests.sessions.test_state_machine import MAX_PASSES, vectors, weights

from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.storage.vault import FileVault

CHECKPOINT_BYTES = 600
"""After a few mutations a checkpoint is due."""

MOST_SESSIONS = 3
WAIT_SECONDS = 30.0

sessions = st.integers(0, MOST_SESSIONS - 1)


class TrainingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.dropped: list[SessionStore] = []
        self.requests = 0
        self.kept: list[Kept] = []
        self.deleted: list[tuple[str, RequestKey]] = []
        self.start()

    def start(self) -> None:
        limits = Limits(max_passes=MAX_PASSES)
        self.vault = FileVault(
            self.directory, default=Durability.JOURNAL, limits=limits, checkpoint_bytes=CHECKPOINT_BYTES
        )
        self.store = SessionStore(limits, vault=self.vault)
        recovered = threading.Event()
        self.store.when_recovered(recovered.set)
        assert recovered.wait(WAIT_SECONDS)

    def teardown(self) -> None:
        for store in (*self.dropped, self.store):
            store.close()
        shutil.rmtree(self.directory)

    def one(self, which: int) -> Kept:
        return self.kept[which % len(self.kept)]

    def session(self, kept: Kept) -> Session:
        return self.store.get(kept.session_id)

    def new_key(self) -> RequestKey:
        self.requests += 1
        return RequestKey(f"request {self.requests}", b"")

    def mutate(self, kept: Kept, call: Callable[[Session, RequestKey], Any]) -> Any:
        """Does the call under a new request id, and remembers it for `repeat`."""
        key = self.new_key()
        answer = call(self.session(kept), key)
        kept.last = (lambda: call(self.session(kept), key)), answer
        return answer

    def refused(self, error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], Any]) -> None:
        try:
            call()
        except error:
            return
        raise AssertionError(f"{error} was expected")

    @initialize()
    def begin(self) -> None:
        self.create()

    @precondition(lambda self: len(self.kept) < MOST_SESSIONS)
    @rule()
    def create(self) -> None:
        key = self.new_key()
        info = self.store.create(UNBOUNDED, spec(), key)
        assert self.store.create(UNBOUNDED, spec(), key).session_id == info.session_id
        self.kept.append(Kept(info.session_id, new_model()))

    @precondition(lambda self: len(self.kept) > 1)
    @rule(which=sessions)
    def delete(self, which: int) -> None:
        kept, key = self.one(which), self.new_key()
        self.store.delete(UNBOUNDED, kept.session_id, key)
        self.kept.remove(kept)
        self.deleted.append((kept.session_id, key))

    @precondition(lambda self: len(self.kept) < MOST_SESSIONS)
    @rule(which=sessions)
    def fork(self, which: int) -> None:
        kept, key = self.one(which), self.new_key()
        info = self.store.fork(UNBOUNDED, kept.session_id, key)
        assert self.store.fork(UNBOUNDED, kept.session_id, key).session_id == info.session_id
        self.kept.append(kept.branch(info.session_id))

    @rule(which=sessions, x=vectors, name=st.sampled_from(["", "", "a", "b"]))
    def forward(self, which: int, x: Array, name: str) -> None:
        kept, call = self.one(which), ForwardCall({"x": x}, forward_id=name)
        if name in kept.model.passes:
            self.refused(errors.PassExists, lambda: self.session(kept).forward(UNBOUNDED, call, lease=kept.lease))
            return
        result = self.mutate(kept, lambda session, key: session.forward(UNBOUNDED, call, key, lease=kept.lease))
        assert result.loss == float(np.sum(x * (kept.model.w + kept.model.c)))
        kept.model.keep(result.forward_id, x)
        kept.names.append(result.forward_id)

    @precondition(lambda self: any(kept.names for kept in self.kept))
    @rule(which=sessions, age=st.integers(1, 4), retain=st.booleans(), weight=weights)
    def backward(self, which: int, age: int, retain: bool, weight: float) -> None:
        kept = self.one(which)
        name = kept.names[-min(age, len(kept.names))] if kept.names else "never"
        call = BackwardCall(name, wrt=("x",), retain=retain, weight=weight)
        if name not in kept.model.passes:
            gone = errors.PassExpired, errors.PassNotFound
            self.refused(gone, lambda: self.session(kept).backward(UNBOUNDED, call, lease=kept.lease))
            return
        result = self.mutate(kept, lambda session, key: session.backward(UNBOUNDED, call, key, lease=kept.lease))
        x, total = kept.model.passes[name]
        np.testing.assert_array_equal(result.input_gradients["x"], total)
        kept.model.add(x, weight)
        if not retain:
            kept.model.drop(name)

    @rule(which=sessions, normalization=st.sampled_from(Normalization))
    def step(self, which: int, normalization: Normalization) -> None:
        kept = self.one(which)
        options = StepOptions(expected_step=kept.model.step, normalization=normalization)
        if not kept.model.contributions:
            self.refused(errors.NoGradients, lambda: self.session(kept).step(UNBOUNDED, options, lease=kept.lease))
            return
        self.mutate(kept, lambda session, key: session.step(UNBOUNDED, options, key, lease=kept.lease))
        kept.model.apply(normalization)
        kept.stepped()

    @rule(which=sessions, x=vectors, weight=weights, normalization=st.sampled_from(Normalization))
    def train_step(self, which: int, x: Array, weight: float, normalization: Normalization) -> None:
        kept, call = self.one(which), TrainCall({"x": x}, ("y",), weight, StepOptions(normalization=normalization))
        result = self.mutate(kept, lambda session, key: session.train_step(UNBOUNDED, call, key, lease=kept.lease))
        np.testing.assert_array_equal(result.outputs["y"], x * (kept.model.w + kept.model.c))
        kept.model.add(x, weight)
        kept.model.apply(normalization)
        kept.stepped()

    @rule(which=sessions, policy=st.sampled_from([NonFinitePolicy.REJECT, NonFinitePolicy.SKIP]))
    def train_step_on_infinity(self, which: int, policy: NonFinitePolicy) -> None:
        kept = self.one(which)
        call = TrainCall({"x": np.array([np.inf, 1.0])}, options=StepOptions(non_finite=policy))
        if policy is NonFinitePolicy.REJECT:
            self.refused(
                errors.NonFiniteGradient, lambda: self.session(kept).train_step(UNBOUNDED, call, lease=kept.lease)
            )
            return
        self.mutate(kept, lambda session, key: session.train_step(UNBOUNDED, call, key, lease=kept.lease))
        kept.model.clear()

    @rule(which=sessions, w=vectors, c=st.none() | vectors)
    def set_parameters(self, which: int, w: Array, c: Array | None) -> None:
        kept, given = self.one(which), {"w": w} if c is None else {"w": w, "c": c}
        self.mutate(kept, lambda session, key: session.set_parameters(UNBOUNDED, given, key, lease=kept.lease))
        kept.model.w, kept.model.c = w, kept.model.c if c is None else c

    @rule(which=sessions)
    def zero_gradients(self, which: int) -> None:
        kept = self.one(which)
        result = self.mutate(kept, lambda session, key: session.zero_gradients(UNBOUNDED, key, lease=kept.lease))
        assert result.count == kept.model.contributions
        kept.model.clear()

    @invariant()
    def all_are_like_their_models(self) -> None:
        assert {each.session_id for each in self.store.list().sessions} == {kept.session_id for kept in self.kept}
        for kept in self.kept:
            session, model = self.session(kept), kept.model
            for snapshot, expected in (
                (session.parameters(UNBOUNDED), {"w": model.w, "c": model.c}),
                (session.gradients(UNBOUNDED), {"w": model.gradient}),
            ):
                with snapshot:
                    for name, array in snapshot:
                        np.testing.assert_array_equal(array, expected[name])
            info = session.info()
            assert (info.step, info.contributions) == (model.step, model.contributions)
            assert info.forward_ids == tuple(model.passes)
            assert (info.lease.number if info.lease else 0) == kept.lease
            names = {each.name for each in session.checkpoints(UNBOUNDED) if each.name}
            assert names == set(kept.saved)
