"""With a bound on staleness, gradients of parameters that are too old never take part in a step."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.storage.durable import Disk, network

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session

X = np.array([1.0, -2.0, 4.0])


@pytest.fixture
def bounded(make_session: Any, dot: Any) -> Any:
    """Makes a session of `dot` with a bound."""
    return lambda steps: make_session(replace(dot(), max_staleness=steps), max_passes=1_000)


def forward(session: Session) -> str:
    return session.forward(UNBOUNDED, ForwardCall({"x": X})).forward_id


def train(session: Session, steps: int) -> None:
    for _ in range(steps):
        session.train_step(UNBOUNDED, TrainCall({"x": X}))


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_a_pass_is_taken_up_to_the_bound_and_refused_past_it(bounded: Any, bound: int) -> None:
    session = bounded(bound)
    name = forward(session)
    train(session, bound)
    assert session.backward(UNBOUNDED, BackwardCall(name, retain=True)).contributions == 1
    train(session, 1)
    with pytest.raises(errors.StalePass, match=f"made {bound + 1} steps ago.*at most {bound} steps") as caught:
        session.backward(UNBOUNDED, BackwardCall(name))
    assert caught.value.field == "forward_id"
    assert session.info().contributions == 0


def test_without_a_bound_a_pass_of_any_age_is_taken(session: Session) -> None:
    name = forward(session)
    train(session, 20)
    assert session.backward(UNBOUNDED, BackwardCall(name)).contributions == 1


def test_a_bound_below_0_is_refused(dot: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="max_staleness is -1") as caught:
        replace(dot(), max_staleness=-1).check(Limits())
    assert caught.value.field == "max_staleness"


def test_the_age_of_a_pass_outlives_the_memory(tmp_path: Path) -> None:
    batch = {"x": np.ones((3, 4), np.float32), "t": np.zeros((3, 2), np.float32)}
    asked = pb.CreateSessionRequest.FromString(network().definition)
    asked.max_staleness = 1
    with Disk(tmp_path) as disk:
        store = disk.open()
        session = store.get(store.create(UNBOUNDED, session_spec(asked, Limits())).session_id)
        session.train_step(UNBOUNDED, TrainCall(batch))
        old, young = (session.forward(UNBOUNDED, ForwardCall(batch, forward_id=name)).forward_id for name in "ab")
        session.train_step(UNBOUNDED, TrainCall(batch))
        assert session.hibernate()
        session.backward(UNBOUNDED, BackwardCall(young))
        session.step(UNBOUNDED, StepOptions())
        assert session.hibernate()
        with pytest.raises(errors.StalePass, match="made 2 steps ago"):
            session.backward(UNBOUNDED, BackwardCall(old))


def test_workers_that_do_not_wait_for_each_other_stay_within_the_bound(bounded: Any) -> None:
    session, bound = bounded(2), 2
    made: dict[str, int] = {}
    taken, refused = [], []

    def work(_: int) -> None:
        for _ in range(50):
            found = session.forward(UNBOUNDED, ForwardCall({"x": X}))
            made[found.forward_id] = found.step
            try:
                session.backward(UNBOUNDED, BackwardCall(found.forward_id))
                taken.append(found.forward_id)
                session.step(UNBOUNDED, StepOptions())
            except errors.StalePass:
                refused.append(found.forward_id)
            except errors.NoGradients:
                continue  # the step of another has applied it

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(taken) + len(refused) == 400
    left = session.info()
    applied = (np.array([1.0, 2.0, 3.0]) - _weights(session)) / (0.5 * X)
    np.testing.assert_array_equal(applied, np.full(3, len(taken) - left.contributions))
    for name in refused:
        assert left.step - made[name] > bound
        with pytest.raises(errors.StalePass):
            session.backward(UNBOUNDED, BackwardCall(name))


def _weights(session: Session) -> Any:
    with session.parameters(UNBOUNDED, ["w"]) as snapshot:
        return dict(snapshot)["w"].copy()
