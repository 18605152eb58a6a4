"""Looking before training: what is sent, and how the answers read."""

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

import backwire as bw
from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as service_pb2
from backwire_api.v1 import graph_pb2

if TYPE_CHECKING:
    from tests.client.fake_service import FakeService


def default(**kind: Any) -> graph_pb2.Attribute:
    return graph_pb2.Attribute(**kind)


def test_describe_sends_graph_shapes_and_optimizer(client: bw.Client, service: "FakeService", refuse: Any) -> None:
    loss = bw.mean(bw.input("x", ("batch", 2)) @ bw.parameter("w", [1.0, 2.0]))
    service.before["DescribeGraph"].append(refuse(grpc.StatusCode.UNAVAILABLE))
    found = client.describe(loss, {"x": (4, 2)}, bw.SGD(0.5))
    first, again = service.requests["DescribeGraph"]
    assert first == again, "it is repeated, since it changes nothing"
    assert again.optimizer.learning_rate == 0.5
    assert [each.name for each in again.graph.parameters] == ["w"]
    assert found.values == {"x": bw.ValueInfo("x", np.dtype("float32"), (4, 2))}
    assert (found.parameter_count, found.forward, found.train_step) == (1, bw.WireBytes(0, 0), None)
    client.describe(loss)
    assert not service.requests["DescribeGraph"][-1].HasField("optimizer")


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (default(integer=0), 0),
        (default(number=0.5), 0.5),
        (default(text="NOTSET"), "NOTSET"),
        (default(integers=graph_pb2.Attribute.Integers(items=[1, 2])), (1, 2)),
        (default(numbers=graph_pb2.Attribute.Numbers(items=[0.5])), (0.5,)),
        (default(texts=graph_pb2.Attribute.Texts(items=["Tanh"])), ("Tanh",)),
        (default(tensor=tensors.encode(np.float32(3))), 3.0),
        (None, None),
    ],
)
def test_defaults_of_attributes_are_plain_values(
    client: bw.Client, service: "FakeService", sent: graph_pb2.Attribute | None, value: object
) -> None:
    service.ops = [service_pb2.OpInfo(name="Op", attributes=[service_pb2.OpAttribute(name="a", default=sent)])]
    assert client.ops()["Op"].attributes == (bw.OpAttribute("a", required=False, default=value),)  # type: ignore[arg-type]


def test_the_text_of_an_op_is_its_signature() -> None:
    inputs = (bw.OpInput("x", optional=False), bw.OpInput("y", optional=True))
    attributes = (
        bw.OpAttribute("axis", required=False, default=-1),
        bw.OpAttribute("pads", required=False, default=None),
        bw.OpAttribute("to", required=True, default=None),
    )
    op = bw.OpInfo("Op", "Does it.", inputs, variadic=False, attributes=attributes, outputs=2, differentiable=True)
    text = "Op(x, y=None, *, axis=-1, pads=..., to)\nDoes it.\n[up to 2 outputs, differentiable]"
    assert str(op) == text
    many = bw.OpInfo("Op", "Does it.", inputs[:1], variadic=True, attributes=(), outputs=0, differentiable=False)
    assert str(many) == "Op(x, *inputs)\nDoes it.\n[any number of outputs, not differentiable]"


def test_a_session_is_described_by_shapes_or_measured_on_inputs(session: bw.Session, service: "FakeService") -> None:
    told = session.describe()
    assert [each.name for each in told.graph.proto.inputs] == ["x", "labels"]
    assert (told.description, told.forward_seconds) == (None, 0)
    shaped = session.describe(shapes={"x": (1, 2)}).description
    assert shaped is not None
    assert shaped.nodes == {"y": bw.NodeCost(3, 0, 0.0, 0.0)}
    timed = session.describe({"x": np.ones((1, 2)), "labels": np.zeros(1, int)}, passes=2)
    assert timed.forward_seconds == 1.0
    assert timed.description is not None
    assert timed.description.nodes["y"].backward_seconds == 0.5
    requests = service.requests["DescribeSession"]
    assert [each.passes for each in requests] == [0, 0, 2]
    assert [sorted(each.inputs) for each in requests] == [[], [], ["labels", "x"]]
    assert list(requests[1].input_shapes["x"].sizes) == [1, 2]


@pytest.mark.parametrize("passes", [-1, 1001])
def test_a_number_of_passes_that_is_wrong_is_not_sent(session: bw.Session, service: "FakeService", passes: int) -> None:
    with pytest.raises(bw.InvalidRequestError, match="passes"):
        session.describe(passes=passes)
    assert not service.requests["DescribeSession"]


def test_check_gradients_tells_the_worst(session: bw.Session, service: "FakeService") -> None:
    inputs = {"x": np.ones((1, 2)), "labels": np.zeros(1, int)}
    found = session.check_gradients(inputs, max_elements=3, seed=9)
    (request,) = service.requests["CheckGradients"]
    assert (request.max_elements, request.seed, list(request.names)) == (3, 9, [])
    assert (found.worst_error, found.loss) == (0.5, 2.0)
    assert found.dtype == np.float64
    assert found.parameters["b"].worst_index == (0, 1)
    assert list(session.check_gradients(inputs, parameters=["w"]).parameters) == ["w"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_elements": 0}, bw.InvalidRequestError),
        ({"seed": -1}, bw.InvalidRequestError),
        ({"parameters": ["table"]}, bw.UnknownNameError),
    ],
)
def test_what_cannot_be_checked_is_not_sent(
    session: bw.Session, service: "FakeService", options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        session.check_gradients({}, **options)
    assert not service.requests["CheckGradients"]
