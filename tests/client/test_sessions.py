"""Sessions against a test double: what is sent for each call, and what comes back."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as service_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService


def test_create_session_sends_graph_optimizer_and_seed(session: bw.Session, service: "FakeService") -> None:
    (request,) = service.requests["CreateSession"]
    assert [each.name for each in request.graph.parameters] == ["w", "b", "table"]
    assert request.optimizer.sgd.IsInitialized()
    assert request.optimizer.learning_rate == pytest.approx(0.1)
    assert request.seed == 7
    assert session.id == "session-0"


def test_a_scalar_value_stands_for_the_graph_whose_loss_it_is(client: bw.Client, service: "FakeService") -> None:
    client.create_session(bw.squared_error(bw.parameter("p", 1.0), 2.0))
    (request,) = service.requests["CreateSession"]
    assert request.graph.loss == "ReduceMean"
    assert not request.HasField("optimizer")


def test_create_session_refuses_what_is_no_graph_optimizer_or_seed(client: bw.Client) -> None:
    loss = bw.squared_error(bw.parameter("p", 1.0), 2.0)
    with pytest.raises(bw.GraphError, match="neither a Graph nor a Value"):
        client.create_session("loss")  # type: ignore[arg-type]
    with pytest.raises(bw.InvalidRequestError, match="no optimizer"):
        client.create_session(loss, "adam")  # type: ignore[arg-type]
    with pytest.raises(bw.InvalidRequestError, match="seed=-1 is no whole number of 64 bits"):
        client.create_session(loss, seed=-1)


@pytest.mark.parametrize("number", [-1, 2**64, 1.5, "2"])
def test_numbers_that_a_message_cannot_have_are_refused_by_their_name(
    client: bw.Client, session: bw.Session, number: Any
) -> None:
    batch: dict[str, Any] = {"x": [[1, 2]], "labels": [0]}
    loss = bw.mean(bw.parameter("p", [1.0]))
    calls: list[tuple[str, Callable[..., object]]] = [
        ("data_parallel", partial(client.create_session, loss)),
        ("data_parallel", partial(session.forward, batch)),
        ("data_parallel", partial(session.train_step, batch)),
        ("max_staleness", partial(client.create_session, loss)),
        ("expected_step", partial(session.train_step, batch)),
        ("after_contributions", session.step),
    ]
    for field, call in calls:
        with pytest.raises(
            bw.InvalidRequestError, match=f"{field}={number!r} is no whole number of (31|63) bits"
        ) as told:
            call(**{field: number})
        assert told.value.field == field


def test_forward_returns_outputs_loss_id_and_step(session: bw.Session) -> None:
    forward = session.forward({"x": [[1, 2], [3, 4]], "labels": [0, 1]})
    np.testing.assert_array_equal(forward.outputs["y"], np.array([[2, 4], [6, 8]], np.float32))
    assert (forward.loss, forward.id, forward.step) == (10.0, "pass-1", 0)


def test_outputs_are_read_only_views(session: bw.Session) -> None:
    y = session.forward({"x": [[1, 2]]}).outputs["y"]
    with pytest.raises(ValueError, match="read-only"):
        y[0, 0] = 1


def test_inputs_are_converted_to_their_declared_dtype(session: bw.Session, service: "FakeService") -> None:
    session.forward({"x": np.array([[1.5, 2.5]]), "labels": np.array([1], np.uint8)})
    inputs = service.requests["Forward"][0].inputs
    assert np.frombuffer(inputs["x"].data, "<f4").tolist() == [1.5, 2.5]
    assert np.frombuffer(inputs["labels"].data, "<i8").tolist() == [1]


def test_inputs_that_would_lose_their_meaning_are_refused(session: bw.Session, service: "FakeService") -> None:
    with pytest.raises(bw.DTypeError, match=r"input 'labels' is float64, but must be int64"):
        session.forward({"labels": [0.5]})
    with pytest.raises(bw.TensorError, match="too large for float32"):
        session.forward({"x": [[1e300, 0.0]]})
    with pytest.raises(bw.DTypeError, match="no array"):
        session.forward({"x": [["a", "b"]]})
    with pytest.raises(bw.UnknownNameError, match=r"no input 'z'; it has 'x', 'labels'") as caught:
        session.forward({"z": [1.0]})
    assert caught.value.field == "inputs[z]"
    with pytest.raises(bw.InvalidRequestError, match=r"the inputs are a ndarray; give a dictionary .* \{'x': \.\.\."):
        session.forward(np.ones((1, 2)))  # type: ignore[arg-type]
    assert not service.requests["Forward"]


def test_forward_in_eval_mode_is_no_mutation(session: bw.Session, service: "FakeService") -> None:
    forward = session.forward({"x": [[1, 2]]}, mode="eval", outputs=["y"])
    (request,) = service.requests["Forward"]
    assert request.mode == service_pb2.MODE_EVAL
    assert request.request_id == ""
    assert list(request.outputs) == ["y"]
    with pytest.raises(bw.FailedPreconditionError, match="mode='train'"):
        forward.backward()


def test_forward_refuses_unknown_modes_and_outputs(session: bw.Session) -> None:
    with pytest.raises(bw.InvalidRequestError, match="'train', 'eval'"):
        session.forward({}, mode="test")  # type: ignore[arg-type]
    with pytest.raises(bw.UnknownNameError, match="no output 'q'"):
        session.forward({}, outputs=["q"])


def test_forward_id_is_the_clients_choice(session: bw.Session) -> None:
    assert session.forward({"x": [[1, 2]]}, forward_id="mine").id == "mine"


def test_backward_returns_the_gradients_of_inputs(session: bw.Session, service: "FakeService") -> None:
    forward = session.forward({"x": [[1, 2]]})
    gradients = forward.backward({"y": [[0.5, 0.25]]}, wrt=["x"], retain=True, weight=3)
    np.testing.assert_array_equal(gradients["x"], np.array([[0.5, 0.25]], np.float32))
    (request,) = service.requests["Backward"]
    assert (request.forward_id, request.retain, request.weight) == ("pass-1", True, 3)


def test_output_gradients_take_the_dtype_of_the_output_or_else_of_the_graph(
    session: bw.Session, service: "FakeService"
) -> None:
    forward = session.forward({"x": [[1, 2]]})
    forward.backward({"y": np.array([[1.0, 2.0]]), "loss": 1.0})
    sent = service.requests["Backward"][0].output_gradients
    assert (len(sent["y"].data), len(sent["loss"].data)) == (8, 4)


def test_backward_refuses_names_that_the_graph_does_not_have(session: bw.Session) -> None:
    forward = session.forward({"x": [[1, 2]]})
    with pytest.raises(bw.UnknownNameError, match="no output 'z'"):
        forward.backward({"z": [1.0]})
    with pytest.raises(bw.UnknownNameError, match="no input 'w'"):
        forward.backward(wrt=["w"])


def test_step_sends_its_options_and_returns_the_outcome(session: bw.Session, service: "FakeService") -> None:
    result = session.step(0.5, expected_step=0, non_finite="skip", normalize="mean")
    options = service.requests["Step"][0].options
    assert (options.learning_rate, options.expected_step) == (0.5, 0)
    assert options.non_finite == service_pb2.NON_FINITE_POLICY_SKIP
    assert options.normalization == service_pb2.GRADIENT_NORMALIZATION_MEAN
    assert (result.step, result.gradient_norm, result.contributions, result.skipped) == (1, 1.5, 1, False)


def test_step_leaves_options_unset_by_default(session: bw.Session, service: "FakeService") -> None:
    session.step()
    options = service.requests["Step"][0].options
    assert not options.HasField("learning_rate")
    assert not options.HasField("expected_step")


def test_train_step_returns_loss_and_the_outputs_asked_for(session: bw.Session, service: "FakeService") -> None:
    result = session.train_step({"x": [[1, 2]], "labels": [0]}, outputs=["y"], weight=2)
    assert (result.step, result.loss) == (1, 0.25)
    assert result.outputs["y"].tolist() == [[2, 4]]
    assert service.requests["TrainStep"][0].weight == 2


def test_every_mutation_draws_its_own_request_id(session: bw.Session, service: "FakeService") -> None:
    session.forward({"x": [[1, 2]]}).backward()
    session.step()
    session.train_step({"x": [[1, 2]]})
    session.zero_gradients()
    session.set_parameters({"b": [1, 2]})
    session.close()
    ids = [request.request_id for requests in service.requests.values() for request in requests]
    assert len(ids) == len(set(ids)) == 8
    assert all(len(each) == 32 for each in ids)


def test_a_request_id_of_the_user_is_sent(session: bw.Session) -> None:
    session.step(request_id="mine")
    session.step(request_id="mine")
    assert session.info().step == 1


def test_close_deletes_once_and_a_closed_session_says_so(session: bw.Session, service: "FakeService") -> None:
    session.close()
    session.close()
    assert len(service.requests["DeleteSession"]) == 1
    with pytest.raises(bw.SessionNotFoundError, match="closed here"):
        session.step()


def test_close_of_a_session_that_is_gone_does_nothing(session: bw.Session, service: "FakeService") -> None:
    service.sessions.clear()
    session.close()


def test_the_context_manager_deletes_the_session_also_on_errors(session: bw.Session, service: "FakeService") -> None:
    with pytest.raises(KeyError), session:
        raise KeyError
    assert not service.sessions


def test_a_failing_close_does_not_hide_the_error_of_the_block(session: bw.Session, service: "FakeService") -> None:
    def fail(context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INTERNAL, "broken")

    service.before["DeleteSession"] = [fail]
    with pytest.raises(KeyError), session:
        raise KeyError


def test_attaching_finds_a_session_by_its_id(client: bw.Client, session: bw.Session) -> None:
    assert client.session(session.id).forward({"x": [[1, 2]]}).loss == 3
    with pytest.raises(bw.SessionNotFoundError):
        client.session("elsewhere")


def test_sessions_go_through_all_pages(client: bw.Client, service: "FakeService") -> None:
    for _ in range(5):
        client.create_session(bw.squared_error(bw.parameter("p", 1.0), 2.0))
    assert [each.id for each in client.sessions()] == [f"session-{index}" for index in range(5)]
    assert len(service.requests["ListSessions"]) == 3
