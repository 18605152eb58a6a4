"""What each RPC does, through a real server."""

from typing import Any

import grpc
import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2

X = np.array([1.0, -2.0, 4.0])
TABLE = np.array([10.0, 20.0, 30.0])


def test_a_session_tells_what_it_is(api: Any, graph: Any) -> None:
    optimizer = optimizer_pb2.Optimizer(learning_rate=0.1, adam=optimizer_pb2.Adam(beta1=0.8))
    request = pb.CreateSessionRequest(graph=graph(), optimizer=optimizer, seed=2**64 - 1)
    created = api.stub.CreateSession(request).session
    session = api.info(created.session_id)
    assert session.inputs[0] == graph().inputs[0]
    assert [(each.name, each.shape, each.frozen) for each in session.parameters] == [
        ("w", [3], False),
        ("c", [3], True),
    ]
    assert session.parameters[0].dtype == tensor_pb2.DATA_TYPE_FLOAT64
    assert (session.outputs, session.has_loss, session.seed, session.step) == (["y"], True, 2**64 - 1, 0)
    assert session.optimizer.adam.beta1 == 0.8
    assert session.optimizer.adam.beta2 == 0.999, "defaults are filled in"
    assert session.limits.max_message_bytes == 256 << 20
    assert session.limits.pass_ttl.seconds == 600
    assert session.limits.idle_ttl.seconds == 86_400
    assert session.last_use_time.ToNanoseconds() >= session.create_time.ToNanoseconds() > 1e18


def test_a_symbolic_dimension_keeps_its_name(api: Any) -> None:
    shape = [graph_pb2.Dimension(symbol="batch"), graph_pb2.Dimension(size=2)]
    item = graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape)
    session = api.create(graph_pb2.Graph(inputs=[item], outputs={"x": "x"}))
    assert api.info(session).inputs[0] == item


def test_forward_backward_step(api: Any) -> None:
    session = api.create()
    forward = api.forward(session)
    np.testing.assert_array_equal(tensors.decode(forward.outputs["y"]), X * [11, 22, 33])
    assert forward.loss == float(np.sum(X * [11, 22, 33]))
    assert api.info(session).forward_ids == [forward.forward_id]
    backward = api.backward(session, forward.forward_id, wrt=["x"], weight=2.0)
    assert backward.contributions == 1
    np.testing.assert_array_equal(tensors.decode(backward.input_gradients["x"]), [11, 22, 33])
    np.testing.assert_array_equal(api.gradients(session)["w"], 2 * X)
    result = api.step(session, expected_step=0, normalization=pb.GRADIENT_NORMALIZATION_MEAN)
    assert (result.step, result.contributions, result.learning_rate, result.skipped) == (1, 1, 0.5, False)
    assert result.gradient_norm == pytest.approx(float(np.linalg.norm(X)))
    np.testing.assert_array_equal(api.parameters(session)["w"], [1, 2, 3] - 0.5 * X)


def test_train_step_returns_only_the_outputs_asked_for(api: Any) -> None:
    session = api.create()
    assert not api.train(session).outputs
    answer = api.train(session, outputs=["y"])
    w = [1, 2, 3] - 0.5 * X
    np.testing.assert_array_equal(tensors.decode(answer.outputs["y"]), X * (w + TABLE))
    assert answer.loss == float(np.sum(X * (w + TABLE)))
    assert answer.result.step == 2


def test_eval_mode_keeps_nothing(api: Any) -> None:
    session = api.create()
    answer = api.forward(session, mode=pb.MODE_EVAL, request_id="r")
    assert answer.forward_id == ""
    assert api.info(session).forward_ids == []
    api.train(session)
    again = api.forward(session, mode=pb.MODE_EVAL, request_id="r")
    assert again.step == 1
    assert again.loss != answer.loss


def test_output_gradients_and_input_gradients_through_the_wire(api: Any) -> None:
    session = api.create()
    forward_id = api.forward(session).forward_id
    given = {"y": tensors.encode(np.array([1.0, 0.0, 2.0]))}
    answer = api.backward(session, forward_id, output_gradients=given, wrt=["x", "x"], retain=True)
    np.testing.assert_array_equal(tensors.decode(answer.input_gradients["x"]), [11, 0, 66])
    assert api.info(session).forward_ids == [forward_id]


def test_a_skipped_step_says_so(api: Any) -> None:
    session = api.create()
    options = pb.StepOptions(non_finite=pb.NON_FINITE_POLICY_SKIP)
    result = api.train(session, np.array([1, np.inf, 1]), options=options).result
    assert (result.step, result.skipped, result.non_finite_parameter) == (0, True, "w")


def test_gradients_are_zeros_until_something_was_accumulated(api: Any) -> None:
    session = api.create()
    np.testing.assert_array_equal(api.gradients(session)["w"], np.zeros(3))
    assert api.stub.ZeroGradients(pb.ZeroGradientsRequest(session_id=session)).contributions == 0


def test_zero_gradients_discards(api: Any) -> None:
    session = api.create()
    api.backward(session, api.forward(session).forward_id)
    assert api.stub.ZeroGradients(pb.ZeroGradientsRequest(session_id=session)).contributions == 1
    np.testing.assert_array_equal(api.gradients(session)["w"], np.zeros(3))


def test_sessions_are_listed_and_deleted(api: Any) -> None:
    ids = [api.create() for _ in range(3)]
    page = api.stub.ListSessions(pb.ListSessionsRequest(page_size=2))
    assert [each.session_id for each in page.sessions] == ids[:2]
    api.stub.DeleteSession(pb.DeleteSessionRequest(session_id=ids[2]))
    rest = api.stub.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=page.next_page_token))
    assert (len(rest.sessions), rest.next_page_token) == (0, "")


def test_the_same_seed_draws_the_same_parameters(api: Any) -> None:
    drawn = graph_pb2.Initializer(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[4, 3], distribution=graph_pb2.Initializer.DISTRIBUTION_GLOROT_NORMAL
    )
    graph = graph_pb2.Graph(parameters=[graph_pb2.Parameter(name="w", initializer=drawn)], outputs={"w": "w"})
    first, second, other = (api.parameters(api.create(graph, seed=seed))["w"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


class TestRepeatedRequests:
    def test_every_mutation_is_applied_once_and_answered_again(self, api: Any, graph: Any) -> None:
        create = pb.CreateSessionRequest(graph=graph(), optimizer=api_sgd(), request_id="create")
        first = api.stub.CreateSession(create)
        assert api.stub.CreateSession(create).session.session_id == first.session.session_id
        session = first.session.session_id
        inputs = {"x": tensors.encode(X)}
        calls = [
            (api.stub.Forward, pb.ForwardRequest(session_id=session, inputs=inputs, forward_id="p", request_id="f")),
            (api.stub.Backward, pb.BackwardRequest(session_id=session, forward_id="p", wrt=["x"], request_id="b")),
            (api.stub.Step, pb.StepRequest(session_id=session, request_id="s")),
            (api.stub.TrainStep, pb.TrainStepRequest(session_id=session, inputs=inputs, outputs=["y"], request_id="t")),
            (api.stub.ZeroGradients, pb.ZeroGradientsRequest(session_id=session, request_id="z")),
        ]
        for method, request in calls:
            answer = method(request)
            state = api.info(session).step, api.info(session).contributions
            assert method(request) == answer
            assert (api.info(session).step, api.info(session).contributions) == state
        delete = pb.DeleteSessionRequest(session_id=session, request_id="d")
        api.stub.DeleteSession(delete)
        api.stub.DeleteSession(delete)

    def test_parameters_are_set_once_in_whatever_order_they_come(self, api: Any) -> None:
        session = api.create()
        values = {"w": np.zeros(3), "c": np.ones(3)}
        api.set_parameters(session, values, "r")
        api.train(session)
        backwards = dict(reversed(values.items()))
        assert api.set_parameters(session, backwards, "r") == 0, "the first answer, of before the step"
        np.testing.assert_array_equal(api.parameters(session, "w")["w"], -0.5 * X)

    def test_another_content_under_the_same_id_is_refused(self, api: Any, refused: Any) -> None:
        session = api.create()
        api.set_parameters(session, {"w": np.zeros(3)}, "r")
        for call in (
            lambda: api.set_parameters(session, {"w": np.ones(3)}, "r"),
            lambda: api.step(session, "r"),
            lambda: api.train(session, request_id="r"),
        ):
            assert refused(call).reason == "REQUEST_ID_REUSED"


def test_a_malformed_request_is_told_as_such(api: Any, refused: Any) -> None:
    told = refused(lambda: api.raw("Forward")(b"\xff\xff\xff"))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert "ForwardRequest" in told.message


@pytest.mark.parametrize("field", ["mode", "options.non_finite", "options.normalization"])
def test_an_unknown_number_of_an_enum_is_refused(api: Any, refused: Any, field: str) -> None:
    session = api.create()
    if field == "mode":
        told = refused(lambda: api.forward(session, mode=77))
    else:
        told = refused(lambda: api.step(session, **{field.removeprefix("options."): 77}))
    assert (told.reason, told.field) == ("INVALID_ARGUMENT", field)


def test_an_unknown_method_is_unimplemented(api: Any, refused: Any) -> None:
    assert refused(lambda: api.raw("Nope")(b"")).code is grpc.StatusCode.UNIMPLEMENTED


def api_sgd() -> optimizer_pb2.Optimizer:
    return optimizer_pb2.Optimizer(learning_rate=0.5, sgd=optimizer_pb2.Sgd())
