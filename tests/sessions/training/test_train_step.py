"""TrainStep is Forward, Backward and Step, to the bit, and all or nothing."""

from typing import Any

import numpy as np
import pytest

from backwire_server import optim
from backwire_server.sessions import errors
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.session import Session
from backwire_server.sessions.training.accumulator import Normalization

OPTIMIZERS = [
    optim.Optimizer(0.1, optim.Sgd(momentum=0.9)),
    optim.Optimizer(0.01, optim.AdamW(), optim.Clipping(global_norm=0.01)),
]


def batches(count: int) -> list[Any]:
    draw = np.random.default_rng(5)
    return [draw.normal(size=(8, 4)).astype(np.float32) for _ in range(count)]


def three_calls(session: Session, x: Any, weight: float, options: StepOptions) -> tuple[Any, ...]:
    found = session.forward(UNBOUNDED, ForwardCall({"x": x}, ("z2",)))
    session.backward(UNBOUNDED, BackwardCall(found.forward_id, weight=weight))
    result = session.step(UNBOUNDED, options)
    return found.loss, found.outputs["z2"].tobytes(), result


def one_call(session: Session, x: Any, weight: float, options: StepOptions) -> tuple[Any, ...]:
    found = session.train_step(UNBOUNDED, TrainCall({"x": x}, ("z2",), weight, options))
    return found.loss, found.outputs["z2"].tobytes(), found.result


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("normalization", Normalization)
def test_equals_three_calls_to_the_bit(
    make_session: Any, network: Any, values: Any, optimizer: optim.Optimizer, normalization: Normalization
) -> None:
    options = StepOptions(normalization=normalization)
    three, one = make_session(network(optimizer)), make_session(network(optimizer))
    for number, x in enumerate(batches(12)):
        ways = [(three, three_calls), (one, one_call)] if number % 3 else [(three, one_call), (one, three_calls)]
        first, second = (way(session, x, 0.7, options) for session, way in ways)
        assert first == second
    for name, array in values(three).items():
        assert array.tobytes() == values(one)[name].tobytes()


def test_gradients_accumulated_before_take_part(make_session: Any, network: Any, values: Any) -> None:
    first, second, third = batches(3)
    three, one = make_session(network()), make_session(network())
    for session in (three, one):
        for x in (first, second):
            found = session.forward(UNBOUNDED, ForwardCall({"x": x}))
            session.backward(UNBOUNDED, BackwardCall(found.forward_id, weight=3.0))
    assert three_calls(three, third, 2.0, StepOptions()) == one_call(one, third, 2.0, StepOptions())
    assert {name: array.tobytes() for name, array in values(three).items()} == {
        name: array.tobytes() for name, array in values(one).items()
    }


def test_a_failure_consumes_no_random_numbers(make_session: Any, network: Any) -> None:
    calm, troubled = make_session(network()), make_session(network())
    (x,) = batches(1)
    with pytest.raises(ValueError, match="rank"):
        troubled.forward(UNBOUNDED, ForwardCall({"x": x[0]}))
    with pytest.raises(errors.StepMismatch):
        troubled.train_step(UNBOUNDED, TrainCall({"x": x}, options=StepOptions(expected_step=4)))
    with pytest.raises(errors.NonFiniteGradient):
        troubled.train_step(UNBOUNDED, TrainCall({"x": x * np.float32(np.nan)}))
    troubled.evaluate(UNBOUNDED, ForwardCall({"x": x}))
    assert one_call(calm, x, 1.0, StepOptions()) == one_call(troubled, x, 1.0, StepOptions())


def test_every_pass_draws_other_numbers(make_session: Any, network: Any) -> None:
    session = make_session(network())
    (x,) = batches(1)
    first, second = (session.forward(UNBOUNDED, ForwardCall({"x": x})).outputs["d1"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_keeps_no_pass_and_drops_none(session: Session) -> None:
    x = np.ones(3)
    name = session.forward(UNBOUNDED, ForwardCall({"x": x})).forward_id
    session.train_step(UNBOUNDED, TrainCall({"x": x}))
    assert session.info().forward_ids == (name,)


def test_refuses_what_step_would_refuse_before_it_computes(session: Session) -> None:
    with pytest.raises(errors.InvalidRequest):
        session.train_step(UNBOUNDED, TrainCall({}, options=StepOptions(learning_rate=-1)))
    with pytest.raises(errors.StepMismatch):
        session.train_step(UNBOUNDED, TrainCall({}, options=StepOptions(expected_step=1)))
