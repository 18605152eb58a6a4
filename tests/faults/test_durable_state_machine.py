"""Drives durable sessions through any sequence of calls, crashes, hibernation and ways back."""

from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.faults.durable_machine import TrainingMachine, sessions
from tests.faults.durable_model import Array, same
from tests.sessions.test_state_machine import vectors

from backwire_server.sessions import errors
from backwire_server.sessions.calls import ForwardCall
from backwire_server.sessions.scope import UNBOUNDED

SILENCE = 1e6

checkpoints = st.sampled_from(["best", "last"])


class DurableMachine(TrainingMachine):
    @rule(which=sessions)
    def repeat(self, which: int) -> None:
        last = self.one(which).last
        if last is not None:
            again, answer = last
            assert same(again(), answer)

    @rule(which=sessions, taken=st.booleans())
    def attach(self, which: int, taken: bool) -> None:
        kept = self.one(which)
        if kept.lease and not taken:
            attach = partial(self.session(kept).attach, UNBOUNDED, "other", SILENCE, take_over=False)
            self.refused(errors.LeaseHeld, attach)
            return
        lease = self.mutate(kept, lambda session, key: session.attach(UNBOUNDED, "me", SILENCE, taken, key))
        kept.leases += 1
        kept.lease = kept.leases
        assert lease.number == kept.lease

    @rule(which=sessions)
    def detach(self, which: int) -> None:
        kept = self.one(which)
        number = kept.lease
        if not number:
            self.refused(errors.WriterFenced, lambda: self.session(kept).detach(UNBOUNDED, kept.leases + 1))
            return
        self.mutate(kept, lambda session, key: session.detach(UNBOUNDED, number, key))
        kept.lease = 0

    @rule(which=sessions, x=vectors)
    def write_without_the_lease(self, which: int, x: Array) -> None:
        kept, call = self.one(which), ForwardCall({"x": x})
        self.refused(errors.WriterFenced, lambda: self.session(kept).forward(UNBOUNDED, call, lease=kept.leases + 1))

    @rule(which=sessions, name=checkpoints)
    def save(self, which: int, name: str) -> None:
        kept = self.one(which)
        found = self.mutate(kept, lambda session, key: session.save_checkpoint(UNBOUNDED, name, key))
        assert (found.step, found.digest) == (kept.model.step, self.session(kept).digest(UNBOUNDED))
        kept.saved[name] = kept.branch("").model

    @rule(which=sessions, name=checkpoints)
    def restore(self, which: int, name: str) -> None:
        kept = self.one(which)
        if name not in kept.saved:
            restore = partial(self.session(kept).restore_checkpoint, UNBOUNDED, name, None, lease=kept.lease)
            self.refused(errors.CheckpointNotFound, restore)
            return
        self.mutate(kept, lambda session, key: session.restore_checkpoint(UNBOUNDED, name, None, key, lease=kept.lease))
        kept.go_back(kept.saved[name])

    @rule(which=sessions, name=checkpoints)
    def forget(self, which: int, name: str) -> None:
        kept = self.one(which)
        if name not in kept.saved:
            self.refused(errors.CheckpointNotFound, lambda: self.session(kept).delete_checkpoint(UNBOUNDED, name))
            return
        self.mutate(kept, lambda session, key: session.delete_checkpoint(UNBOUNDED, name, key))
        del kept.saved[name]

    @rule(which=sessions, age=st.integers(0, 4))
    def rewind(self, which: int, age: int) -> None:
        kept = self.one(which)
        if not kept.steps:
            return
        step = list(kept.steps)[-1 - min(age, len(kept.steps) - 1)]
        try:
            self.mutate(
                kept, lambda session, key: session.restore_checkpoint(UNBOUNDED, "", step, key, lease=kept.lease)
            )
        except errors.CheckpointNotFound:
            automatic = [each.step for each in self.session(kept).checkpoints(UNBOUNDED) if not each.name]
            assert step <= min(automatic, default=-1), "the way there is kept"
            return
        kept.go_back(kept.steps[step])

    @rule(which=sessions)
    def hibernate(self, which: int) -> None:
        kept = self.one(which)
        before = self.session(kept).digest(UNBOUNDED)
        assert self.session(kept).hibernate()
        assert not self.session(kept).awake
        assert self.session(kept).digest(UNBOUNDED) == before

    @rule()
    def crash(self) -> None:
        """What is written in the background comes to its end, so that two processes do not write at once."""
        before = {kept.session_id: self.session(kept).digest(UNBOUNDED) for kept in self.kept}
        self.vault.close()
        self.dropped.append(self.store)
        self.start()
        assert {kept.session_id: self.session(kept).digest(UNBOUNDED) for kept in self.kept} == before

    @precondition(lambda self: self.deleted)
    @rule()
    def delete_again(self) -> None:
        session_id, key = self.deleted[-1]
        self.store.delete(UNBOUNDED, session_id, key)
        self.refused(errors.SessionNotFound, lambda: self.store.get(session_id))


TestDurableMachine = DurableMachine.TestCase
TestDurableMachine.settings = settings(max_examples=40, stateful_step_count=40)
