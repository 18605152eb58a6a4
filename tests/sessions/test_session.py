"""What a session promises to a single caller."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backwire_server import optim
from backwire_server.engine.errors import DtypeMismatch, GraphError, MissingInput, ShapeMismatch, UnknownInput
from backwire_server.engine.graph import Graph, Input, Parameter, TensorType
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, NonFinitePolicy, StepOptions, TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.accumulator import Normalization

X = np.array([1.0, -2.0, 4.0])
ALL = StepOptions()


def forward(session: Session, x: Any = X, **call: Any) -> str:
    return session.forward(UNBOUNDED, ForwardCall({"x": x}, **call)).forward_id


def contribute(session: Session, x: Any = X, weight: float = 1.0) -> None:
    session.backward(UNBOUNDED, BackwardCall(forward(session, x), weight=weight))


def test_forward_returns_outputs_loss_and_step(session: Session) -> None:
    result = session.forward(UNBOUNDED, ForwardCall({"x": X}))
    np.testing.assert_array_equal(result.outputs["y"], X * [11, 22, 33])
    assert result.loss == float(np.sum(X * [11, 22, 33]))
    assert result.step == 0
    assert session.info().forward_ids == (result.forward_id,)


def test_eval_mode_leaves_no_trace(session: Session) -> None:
    before = session.info()
    result = session.evaluate(UNBOUNDED, ForwardCall({"x": X}, outputs=("y",)))
    assert result.forward_id == ""
    assert set(result.outputs) == {"y"}
    after = session.info()
    assert (after.step, after.contributions, after.forward_ids) == (before.step, 0, ())


def test_eval_mode_refuses_a_name_for_the_pass(session: Session) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        session.evaluate(UNBOUNDED, ForwardCall({"x": X}, forward_id="p"))
    assert caught.value.field == "forward_id"


def test_an_output_that_is_a_parameter_keeps_its_value_after_a_step(session: Session) -> None:
    result = session.forward(UNBOUNDED, ForwardCall({"x": X}, outputs=("w",)))
    before = result.outputs["w"].copy()
    session.backward(UNBOUNDED, BackwardCall(result.forward_id))
    session.step(UNBOUNDED, ALL)
    np.testing.assert_array_equal(result.outputs["w"], before)


def test_backward_accumulates_and_step_clears(session: Session, gradients: Callable[..., Any]) -> None:
    contribute(session, X)
    contribute(session, 2 * X)
    np.testing.assert_array_equal(gradients(session)["w"], 3 * X)
    result = session.step(UNBOUNDED, ALL)
    assert (result.step, result.contributions, result.learning_rate) == (1, 2, 0.5)
    assert result.gradient_norm == pytest.approx(float(np.linalg.norm(3 * X)))
    np.testing.assert_array_equal(gradients(session)["w"], np.zeros(3))


def test_step_moves_trainable_parameters_and_leaves_frozen_ones(session: Session, values: Callable[..., Any]) -> None:
    contribute(session)
    session.step(UNBOUNDED, ALL)
    np.testing.assert_array_equal(values(session)["w"], [1, 2, 3] - 0.5 * X)
    np.testing.assert_array_equal(values(session)["c"], [10, 20, 30])


def test_the_mean_divides_by_the_weights(session: Session, values: Callable[..., Any]) -> None:
    contribute(session, X, weight=3.0)
    contribute(session, -X, weight=1.0)
    result = session.step(UNBOUNDED, StepOptions(normalization=Normalization.MEAN))
    assert result.gradient_norm == pytest.approx(float(np.linalg.norm(0.5 * X)))
    np.testing.assert_array_equal(values(session)["w"], [1, 2, 3] - 0.5 * 0.5 * X)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_must_be_finite_and_above_zero(session: Session, weight: float) -> None:
    name = forward(session)
    with pytest.raises(errors.InvalidRequest) as caught:
        session.backward(UNBOUNDED, BackwardCall(name, weight=weight))
    assert caught.value.field == "weight"
    assert session.info().contributions == 0
    assert session.info().forward_ids == (name,)


def test_weights_must_keep_a_finite_sum(session: Session) -> None:
    contribute(session, weight=1.7e308)
    with pytest.raises(errors.InvalidRequest):
        contribute(session, weight=1.7e308)
    assert session.info().contributions == 1


def test_the_learning_rate_of_one_step_replaces_the_optimizers(session: Session, values: Callable[..., Any]) -> None:
    contribute(session)
    assert session.step(UNBOUNDED, StepOptions(learning_rate=0.0)).learning_rate == 0.0
    np.testing.assert_array_equal(values(session)["w"], [1, 2, 3])


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_a_learning_rate_must_be_finite_and_not_negative(session: Session, rate: float) -> None:
    contribute(session)
    with pytest.raises(errors.InvalidRequest) as caught:
        session.step(UNBOUNDED, StepOptions(learning_rate=rate))
    assert caught.value.field == "options.learning_rate"
    assert session.info().contributions == 1


def test_step_without_gradients_is_refused(session: Session) -> None:
    with pytest.raises(errors.NoGradients):
        session.step(UNBOUNDED, ALL)


def test_a_step_that_was_not_expected_is_refused_even_without_gradients(session: Session) -> None:
    contribute(session)
    session.step(UNBOUNDED, StepOptions(expected_step=0))
    with pytest.raises(errors.StepMismatch, match="at step 1, not 0"):
        session.step(UNBOUNDED, StepOptions(expected_step=0))


def test_a_session_without_optimizer_only_computes_gradients(make_session: Any, dot: Any, gradients: Any) -> None:
    spec = dot()
    session = make_session(SessionSpec(spec.graph, spec.sources))
    contribute(session)
    with pytest.raises(errors.NoOptimizer):
        session.step(UNBOUNDED, ALL)
    with pytest.raises(errors.NoOptimizer):
        session.train_step(UNBOUNDED, TrainCall({"x": X}))
    np.testing.assert_array_equal(gradients(session)["w"], X)


def test_a_graph_without_loss_needs_output_gradients(make_session: Any, dot: Any, gradients: Any) -> None:
    spec = dot()
    graph = Graph(spec.graph.inputs, spec.graph.parameters, {}, spec.graph.nodes, {"y": "y"})
    session = make_session(SessionSpec(graph, spec.sources, spec.optimizer))
    name = forward(session)
    with pytest.raises(errors.NoLoss):
        session.backward(UNBOUNDED, BackwardCall(name))
    with pytest.raises(errors.NoLoss):
        session.train_step(UNBOUNDED, TrainCall({"x": X}))
    session.backward(UNBOUNDED, BackwardCall(name, {"y": np.array([1.0, 0.0, 2.0])}))
    np.testing.assert_array_equal(gradients(session)["w"], X * [1, 0, 2])


def test_input_gradients_are_not_weighted(session: Session) -> None:
    result = session.backward(UNBOUNDED, BackwardCall(forward(session), wrt=("x",), weight=7.0))
    np.testing.assert_array_equal(result.input_gradients["x"], [11, 22, 33])


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({}, MissingInput),
        ({"x": X, "z": X}, UnknownInput),
        ({"x": X[:2]}, ShapeMismatch),
        ({"x": X.astype(np.float32)}, DtypeMismatch),
    ],
)
def test_wrong_inputs_are_refused_and_change_nothing(session: Session, inputs: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        session.forward(UNBOUNDED, ForwardCall(inputs))
    with pytest.raises(error):
        session.train_step(UNBOUNDED, TrainCall(inputs))
    info = session.info()
    assert (info.step, info.contributions, info.forward_ids) == (0, 0, ())
    assert forward(session) == "pass-0"


class TestNonFiniteGradients:
    BAD = np.array([1.0, np.nan, np.inf])

    def test_are_rejected_and_stay_readable(self, session: Session, values: Any, gradients: Any) -> None:
        contribute(session, self.BAD)
        with pytest.raises(errors.NonFiniteGradient) as caught:
            session.step(UNBOUNDED, ALL)
        assert caught.value.field == "parameters[w]"
        np.testing.assert_array_equal(values(session)["w"], [1, 2, 3])
        np.testing.assert_array_equal(gradients(session)["w"], self.BAD)
        assert session.info().step == 0

    def test_are_skipped_when_asked_for(self, session: Session, values: Any) -> None:
        contribute(session, self.BAD)
        result = session.step(UNBOUNDED, StepOptions(non_finite=NonFinitePolicy.SKIP))
        assert (result.step, result.skipped, result.non_finite_parameter, result.contributions) == (0, True, "w", 1)
        np.testing.assert_array_equal(values(session)["w"], [1, 2, 3])
        assert session.info().contributions == 0

    def test_are_applied_when_allowed(self, session: Session, values: Any) -> None:
        contribute(session, self.BAD)
        result = session.step(UNBOUNDED, StepOptions(non_finite=NonFinitePolicy.ALLOW))
        assert (result.step, result.skipped, result.non_finite_parameter) == (1, False, "w")
        assert np.isnan(values(session)["w"]).any()

    def test_train_step_that_meets_them_is_undone(self, session: Session, gradients: Any) -> None:
        contribute(session, X)
        with pytest.raises(errors.NonFiniteGradient):
            session.train_step(UNBOUNDED, TrainCall({"x": self.BAD}))
        assert session.info().contributions == 1
        np.testing.assert_array_equal(gradients(session)["w"], X)
        with pytest.raises(errors.NonFiniteGradient):
            session.train_step(UNBOUNDED, TrainCall({"x": self.BAD}))
        session.step(UNBOUNDED, ALL)


def test_clipping_acts_after_the_norm_was_taken(make_session: Any, dot: Any, values: Any) -> None:
    session = make_session(dot(clipping=optim.Clipping(value=1.0)))
    contribute(session)
    assert session.step(UNBOUNDED, ALL).gradient_norm == pytest.approx(float(np.linalg.norm(X)))
    np.testing.assert_array_equal(values(session)["w"], [1, 2, 3] - 0.5 * np.clip(X, -1, 1))


def test_zero_gradients_tells_how_many_it_discarded(session: Session, gradients: Any) -> None:
    contribute(session)
    contribute(session)
    assert session.zero_gradients(UNBOUNDED).count == 2
    np.testing.assert_array_equal(gradients(session)["w"], np.zeros(3))
    contribute(session)
    np.testing.assert_array_equal(gradients(session)["w"], X)


def test_an_answer_that_no_message_can_hold_is_refused_before_anything_changes(make_session: Any) -> None:
    graph = Graph(inputs=(Input("x", TensorType.of(np.float64, ("n",))),), outputs={"x": "x"})
    session = make_session(SessionSpec(graph, {}), max_message_bytes=65_536)
    with pytest.raises(errors.MessageTooLarge):
        session.forward(UNBOUNDED, ForwardCall({"x": np.zeros(8_192)}))
    assert session.info().forward_ids == ()
    session.forward(UNBOUNDED, ForwardCall({"x": np.zeros(4_096)}))


def test_a_parameter_that_cannot_be_trained_must_be_frozen(make_session: Any) -> None:
    whole = Parameter("n", TensorType.of(np.int64, (2,)))
    with pytest.raises(GraphError, match="freeze it"):
        make_session(SessionSpec(Graph(parameters=(whole,), outputs={"n": "n"}), {"n": np.zeros(2, np.int64)}))


def test_a_closed_session_is_not_found(session: Session) -> None:
    session.close(UNBOUNDED)
    with pytest.raises(errors.SessionNotFound):
        forward(session)
    with pytest.raises(errors.SessionNotFound):
        session.close(UNBOUNDED)
