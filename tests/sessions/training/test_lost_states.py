"""Sessions whose states a device lost say so, and those that are made later are computed together as ever."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

from tests.xla.failing import failing_device

from backwire_server.sessions.calls import TrainCall
from backwire_server.sessions.errors import SessionLost
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.store.store import SessionStore
from backwire_server.xla.cohort import Slot

BATCH = TrainCall({"x": np.random.default_rng(4).normal(size=(6, 4)).astype("f4")})


def make(store: SessionStore, network: Any) -> Session:
    spec = replace(network(), executor=Executor.JAX)
    return store.get(store.create(UNBOUNDED, spec).session_id)


def is_stacked(session: Session) -> bool:
    return isinstance(session._keeper.content.trainer.parameters.current.elsewhere, Slot)


def test_a_lost_state_is_told_and_sessions_that_come_later_are_not_concerned(network: Any) -> None:
    store = SessionStore(Limits(), grouped=True)
    lost = [make(store, network) for _ in range(2)]
    for each in lost:
        each.train_step(UNBOUNDED, BATCH)
    with failing_device(), pytest.raises(RuntimeError, match="the device failed"):
        lost[0].train_step(UNBOUNDED, BATCH)
    for each in lost:
        with pytest.raises(SessionLost, match="create it again"):
            each.train_step(UNBOUNDED, BATCH)
        with pytest.raises(SessionLost):
            each.parameters(UNBOUNDED)
    later = make(store, network)
    assert [later.train_step(UNBOUNDED, BATCH).result.step for _ in range(2)] == [1, 2]
    assert is_stacked(later)
    store.delete(UNBOUNDED, lost[0].session_id)
    store.close()


def test_a_state_that_was_read_before_the_device_lost_it_goes_on(network: Any) -> None:
    store = SessionStore(Limits(), grouped=True)
    other, session = (make(store, network) for _ in range(2))
    for each in (other, session):
        each.train_step(UNBOUNDED, BATCH)
    before = session.digest(UNBOUNDED)
    with failing_device(), pytest.raises(RuntimeError):
        other.train_step(UNBOUNDED, BATCH)
    assert session.digest(UNBOUNDED) == before
    assert session.train_step(UNBOUNDED, BATCH).result.step == 2
    assert is_stacked(session)
    store.close()
