"""Parameters of a session are set, read and averaged."""

from typing import Any

import numpy as np
import pytest

from backwire_server import optim
from backwire_server.engine.errors import DtypeMismatch, ShapeMismatch
from backwire_server.engine.graph import Graph, Parameter, TensorType
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec

X = np.array([1.0, -2.0, 4.0])
ALL = StepOptions()


def forward(session: Session, x: Any = X) -> str:
    return session.forward(UNBOUNDED, ForwardCall({"x": x})).forward_id


def contribute(session: Session, x: Any = X) -> None:
    session.backward(UNBOUNDED, BackwardCall(forward(session, x)))


class TestSetParameters:
    def test_replaces_some_values_and_keeps_the_rest(self, session: Session, values: Any) -> None:
        contribute(session)
        assert session.set_parameters(UNBOUNDED, {"c": np.ones(3)}).count == 0
        np.testing.assert_array_equal(values(session)["c"], np.ones(3))
        np.testing.assert_array_equal(values(session)["w"], [1, 2, 3])
        assert session.info().contributions == 1

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            ({"nope": np.ones(3)}, errors.UnknownParameter),
            ({"w": np.ones(4)}, ShapeMismatch),
            ({"w": np.ones(3, np.float32)}, DtypeMismatch),
        ],
    )
    def test_is_all_or_nothing(self, session: Session, values: Any, bad: Any, error: type[Exception]) -> None:
        with pytest.raises(error) as caught:
            session.set_parameters(UNBOUNDED, {"c": np.zeros(3), **bad})
        assert caught.value.field == f"parameters[{next(iter(bad))}]"  # type: ignore[attr-defined]
        np.testing.assert_array_equal(values(session)["c"], [10, 20, 30])

    def test_does_not_reach_into_passes(self, session: Session) -> None:
        name = forward(session)
        session.set_parameters(UNBOUNDED, {"w": np.zeros(3), "c": np.zeros(3)})
        result = session.backward(UNBOUNDED, BackwardCall(name, wrt=("x",)))
        np.testing.assert_array_equal(result.input_gradients["x"], [11, 22, 33])
        again = session.backward(UNBOUNDED, BackwardCall(forward(session), wrt=("x",)))
        np.testing.assert_array_equal(again.input_gradients["x"], np.zeros(3))

    def test_does_not_keep_the_callers_arrays(self, session: Session, values: Any) -> None:
        given = {"w": np.ones(3), "c": np.ones(3)}
        session.set_parameters(UNBOUNDED, given)
        given["w"][:] = given["c"][:] = 9
        np.testing.assert_array_equal(values(session)["w"], np.ones(3))
        np.testing.assert_array_equal(values(session)["c"], np.ones(3))


class TestReading:
    def test_gives_the_names_asked_for_in_their_order(self, session: Session) -> None:
        assert [name for name, _ in session.parameters(UNBOUNDED, ["c", "w"])] == ["c", "w"]
        assert [name for name, _ in session.parameters(UNBOUNDED)] == ["w", "c"]
        assert [name for name, _ in session.gradients(UNBOUNDED)] == ["w"]

    def test_refuses_unknown_and_repeated_names(self, session: Session) -> None:
        with pytest.raises(errors.UnknownParameter):
            session.parameters(UNBOUNDED, ["nope"])
        with pytest.raises(errors.UnknownParameter):
            session.gradients(UNBOUNDED, ["c"])
        with pytest.raises(errors.InvalidRequest):
            session.parameters(UNBOUNDED, ["w", "w"])

    def test_a_snapshot_stays_as_it_was(self, session: Session) -> None:
        contribute(session)
        with session.parameters(UNBOUNDED) as parameters, session.gradients(UNBOUNDED) as gradients:
            contribute(session)
            session.step(UNBOUNDED, ALL)
            session.set_parameters(UNBOUNDED, {"w": np.zeros(3), "c": np.zeros(3)})
            contribute(session, 5 * X)
            np.testing.assert_array_equal(dict(parameters)["w"], [1, 2, 3])
            np.testing.assert_array_equal(dict(parameters)["c"], [10, 20, 30])
            np.testing.assert_array_equal(dict(gradients)["w"], X)
            assert (parameters.step, gradients.contributions) == (0, 1)

    def test_nothing_is_copied_when_nobody_reads(self, session: Session) -> None:
        contribute(session)
        with session.parameters(UNBOUNDED) as snapshot:
            before = dict(snapshot)["w"]
        session.step(UNBOUNDED, ALL)
        with session.parameters(UNBOUNDED) as snapshot:
            assert np.shares_memory(dict(snapshot)["w"], before)


class TestAverages:
    def test_stay_as_they_were_read(self, make_session: Any, dot: Any) -> None:
        session = make_session(dot(average_decay=0.5))
        first = [1.0, 2.0, 3.0] - 0.5 * X
        session.train_step(UNBOUNDED, TrainCall({"x": X}))
        with session.averages(UNBOUNDED) as snapshot:
            session.train_step(UNBOUNDED, TrainCall({"x": X}))
            session.set_parameters(UNBOUNDED, {"w": np.zeros(3), "c": np.zeros(3)})
            np.testing.assert_array_equal(dict(snapshot)["w"], first)
            np.testing.assert_array_equal(dict(snapshot)["c"], [10, 20, 30])
            assert snapshot.step == 1
        with session.averages(UNBOUNDED, ["w"]) as snapshot:
            assert [name for name, _ in snapshot] == ["w"]
            np.testing.assert_array_equal(dict(snapshot)["w"], first - 0.25 * X, "set_parameters leaves averages alone")

    def test_are_the_parameters_until_a_step_was_applied(self, make_session: Any, dot: Any) -> None:
        session = make_session(dot(average_decay=0.5))
        skip = StepOptions(non_finite=NonFinitePolicy.SKIP)
        session.train_step(UNBOUNDED, TrainCall({"x": X * np.nan}, options=skip))
        with session.averages(UNBOUNDED) as snapshot:
            np.testing.assert_array_equal(dict(snapshot)["w"], [1, 2, 3])

    def test_of_parameters_that_are_all_frozen_are_those(self, make_session: Any) -> None:
        graph = Graph(parameters=(Parameter("c", TensorType.of(np.float64, (2,)), frozen=True),), outputs={"c": "c"})
        optimizer = optim.Optimizer(0.5, optim.Sgd(), average_decay=0.5)
        session = make_session(SessionSpec(graph, {"c": np.ones(2)}, optimizer))
        with session.averages(UNBOUNDED) as snapshot:
            np.testing.assert_array_equal(dict(snapshot)["c"], np.ones(2))

    def test_are_refused_when_none_are_kept(self, session: Session) -> None:
        with pytest.raises(errors.InvalidRequest, match="average_decay") as caught:
            session.averages(UNBOUNDED)
        assert caught.value.field == "averaged"

    def test_are_copied_within_the_budget(self, make_store: Any, dot: Any) -> None:
        spec = dot(average_decay=0.5)
        store = make_store()
        session = store.get(store.create(UNBOUNDED, spec).session_id)
        store.budget.limit = store.budget.used + 40
        with pytest.raises(errors.OutOfMemory):
            session.averages(UNBOUNDED)
        with session.averages(UNBOUNDED, ["w"]) as snapshot:
            np.testing.assert_array_equal(dict(snapshot)["w"], [1, 2, 3])
