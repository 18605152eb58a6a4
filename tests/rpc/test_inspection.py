"""DescribeGraph, ListOps, DescribeSession and CheckGradients, through a real server."""

from typing import Any

import grpc
import numpy as np
import pytest

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2

X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}


def product_graph(**nodes: Any) -> graph_pb2.Graph:
    """The loss sum(x w) for x [batch, 3] and a w [3, 5] that the server would draw."""
    shape = [graph_pb2.Dimension(symbol="batch"), graph_pb2.Dimension(size=3)]
    drawn = graph_pb2.Initializer(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[3, 5], distribution=graph_pb2.Initializer.DISTRIBUTION_HE_NORMAL
    )
    return graph_pb2.Graph(
        inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape)],
        parameters=[graph_pb2.Parameter(name="w", initializer=drawn)],
        nodes=[
            graph_pb2.Node(op=nodes.get("op", "MatMul"), inputs=["x", "w"], outputs=["y"]),
            graph_pb2.Node(op="ReduceSum", inputs=["y"], outputs=["l"]),
        ],
        outputs={"out": "y"},
        loss="l",
    )


def describe(api: Any, graph: graph_pb2.Graph, shapes: Any, **request: Any) -> pb.DescribeGraphResponse:
    given = {name: pb.TensorShape(sizes=sizes) for name, sizes in shapes.items()}
    response: pb.DescribeGraphResponse = api.stub.DescribeGraph(
        pb.DescribeGraphRequest(graph=graph, input_shapes=given, **request)
    )
    return response


def test_a_description_tells_types_work_and_bytes(api: Any) -> None:
    adam = optimizer_pb2.Optimizer(learning_rate=0.1, adam=optimizer_pb2.Adam())
    found = describe(api, product_graph(), {"x": [7, 3]}, optimizer=adam)
    assert [(each.name, list(each.shape)) for each in found.values] == [
        ("x", [7, 3]),
        ("w", [3, 5]),
        ("y", [7, 5]),
        ("l", [1, 1]),
    ]
    assert [(each.name, each.dtype, list(each.shape)) for each in found.outputs] == [
        ("out", tensor_pb2.DATA_TYPE_FLOAT32, [7, 5])
    ]
    assert (found.parameter_count, found.trainable_count, found.parameter_bytes) == (15, 15, 60)
    assert found.state_bytes == 60 * 4
    assert found.forward_flops == 2 * 7 * 3 * 5 + 1
    assert found.backward_flops >= 2 * 7 * 3 * 5
    assert found.pass_bytes == 84 + 16
    assert found.peak_bytes > found.pass_bytes
    assert (found.forward.request, found.forward.response) == (84, 140 + 8)
    assert (found.train_step.request, found.train_step.response) == (84, 8)
    assert [(each.output, each.forward_flops) for each in found.nodes] == [("y", 2 * 7 * 3 * 5), ("l", 1)]
    assert sum(each.backward_flops for each in found.nodes) == found.backward_flops
    assert {each.forward_seconds for each in found.nodes} == {0}, "nothing was measured"
    assert not api.stub.ListSessions(pb.ListSessionsRequest()).sessions


def test_a_graph_without_loss_has_no_train_step(api: Any) -> None:
    graph = product_graph()
    graph.loss = ""
    assert not describe(api, graph, {"x": [7, 3]}).HasField("train_step")


@pytest.mark.parametrize(
    ("change", "shapes", "reason", "field"),
    [
        ({"op": "Matmul"}, {"x": [7, 3]}, "UNKNOWN_OP", "graph.nodes[y]"),
        ({}, {}, "MISSING_INPUT", "input_shapes[x]"),
        ({}, {"x": [7, 4]}, "SHAPE_MISMATCH", "input_shapes[x]"),
        ({}, {"x": [7]}, "SHAPE_MISMATCH", "input_shapes[x]"),
        ({}, {"x": [7, 3], "z": []}, "UNKNOWN_INPUT", "input_shapes[z]"),
        ({}, {"x": [-7, 3]}, "INVALID_TENSOR", "input_shapes[x]"),
        ({}, {"x": [1 << 62, 3]}, "INVALID_TENSOR", "input_shapes[x]"),
        ({}, {"x": [1 << 40, 3]}, "MESSAGE_TOO_LARGE", "input_shapes"),
    ],
)
def test_what_cannot_be_described_is_refused(
    api: Any, refused: Any, change: Any, shapes: Any, reason: str, field: str
) -> None:
    refusal = refused(lambda: describe(api, product_graph(**change), shapes))
    assert (refusal.reason, refusal.field) == (reason, field)


def test_a_description_holds_to_the_limits_of_sessions(serve: Any, refused: Any) -> None:
    refusal = refused(lambda: describe(serve(max_graph_nodes=1), product_graph(), {"x": [7, 3]}))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "GRAPH_TOO_LARGE")


def test_figures_beyond_an_int64_are_cut(api: Any) -> None:
    size = np.array([1 << 40, 1 << 20, 7, 5])
    graph = product_graph()
    graph.constants.add(name="size", value=tensors.encode(size))
    graph.nodes.add(op="Expand", inputs=["y", "size"], outputs=["huge"])
    graph.outputs["huge"] = "huge"
    assert describe(api, graph, {"x": [7, 3]}).forward_flops == (1 << 63) - 1


def test_ops_are_listed_with_inputs_and_attributes(api: Any) -> None:
    ops = {each.name: each for each in api.stub.ListOps(pb.ListOpsRequest()).ops}
    assert list(ops) == sorted(ops)
    assert not {"Convolution", "RandomStream"} & set(ops)
    gemm = ops["Gemm"]
    assert [each.optional for each in gemm.inputs] == [False, False, True]
    assert {each.name: each.default.WhichOneof("kind") for each in gemm.attributes} == {
        "alpha": "number",
        "beta": "number",
        "transA": "integer",
        "transB": "integer",
    }
    assert gemm.doc
    assert gemm.differentiable
    assert not ops["ArgMax"].differentiable
    assert [each.required for each in ops["Cast"].attributes if each.name == "to"] == [True]
    assert not next(each for each in ops["Conv"].attributes if each.name == "pads").HasField("default")
    assert ops["Gradient"].variadic


def made(api: Any, graph: graph_pb2.Graph) -> str:
    answer = api.stub.CreateSession(pb.CreateSessionRequest(graph=graph))
    return str(answer.session.session_id)


def test_a_session_tells_its_graph_without_what_takes_room(api: Any) -> None:
    graph = product_graph()
    graph.constants.add(name="few", value=tensors.encode(np.arange(128.0)))
    graph.constants.add(name="many", value=tensors.encode(np.arange(129.0)))
    graph.parameters.add(name="c", value=tensors.encode(np.arange(3)), frozen=True)
    found = api.stub.DescribeSession(pb.DescribeSessionRequest(session_id=made(api, graph)))
    assert found.graph.nodes == graph.nodes
    few, many = found.graph.constants
    assert few == graph.constants[0]
    assert (many.value.data, many.value.shape) == (b"", [129])
    assert found.graph.parameters[0] == graph.parameters[0]
    assert (found.graph.parameters[1].value.data, found.graph.parameters[1].value.shape) == (b"", [3])
    assert not found.HasField("description"), "nothing says how large a batch is"


def test_a_session_is_described_as_its_graph_is(api: Any) -> None:
    shapes = {"x": pb.TensorShape(sizes=[7, 3])}
    session = made(api, product_graph())
    found = api.stub.DescribeSession(pb.DescribeSessionRequest(session_id=session, input_shapes=shapes))
    assert found.description == describe(api, product_graph(), {"x": [7, 3]})
    assert found.forward_seconds == found.backward_seconds == 0


def test_passes_are_measured_and_leave_no_trace(api: Any) -> None:
    session = made(api, product_graph())
    before = api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True)).digest
    inputs = {"x": tensors.encode(np.ones((7, 3), "f4"))}
    found = api.stub.DescribeSession(pb.DescribeSessionRequest(session_id=session, inputs=inputs, passes=3))
    assert [each.output for each in found.description.nodes] == ["y", "l"]
    assert all(each.forward_seconds > 0 for each in found.description.nodes)
    assert found.description.nodes[0].backward_seconds > 0
    assert min(found.forward_seconds, found.backward_seconds) > 0
    assert found.description.nodes[0].forward_flops == 2 * 7 * 3 * 5
    assert api.stub.GetSession(pb.GetSessionRequest(session_id=session, digest=True)).digest == before
    assert not api.info(session).forward_ids


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"session_id": "none"}, "SESSION_NOT_FOUND", "session_id"),
        ({"passes": 1}, "MISSING_INPUT", "inputs"),
        ({"passes": -1}, "INVALID_ARGUMENT", "passes"),
        ({"passes": 1001}, "INVALID_ARGUMENT", "passes"),
        ({"input_shapes": {"z": pb.TensorShape()}}, "UNKNOWN_INPUT", "input_shapes[z]"),
        ({"input_shapes": {"x": pb.TensorShape(sizes=[-1])}}, "INVALID_TENSOR", "input_shapes[x]"),
        ({"inputs": {"x": tensors.encode(np.ones((7, 3)))}, "passes": 1}, "DTYPE_MISMATCH", "inputs[x]"),
    ],
)
def test_a_session_that_cannot_be_described_so_is_not(
    api: Any, refused: Any, request_: Any, reason: str, field: str
) -> None:
    request = pb.DescribeSessionRequest(**{"session_id": made(api, product_graph()), **request_})
    refusal = refused(lambda: api.stub.DescribeSession(request))
    assert (refusal.reason, refusal.field) == (reason, field)


def test_gradients_are_checked_on_the_parameters_of_the_session(api: Any) -> None:
    session = api.create()
    api.train(session)
    found = api.stub.CheckGradients(pb.CheckGradientsRequest(session_id=session, inputs=X))
    (check,) = found.parameters
    assert (check.name, check.checked, len(check.worst_index)) == ("w", 3, 1)
    assert check.worst_error < 1e-6
    assert check.gradient == pytest.approx(check.difference)
    assert found.dtype == tensor_pb2.DATA_TYPE_FLOAT64
    assert found.loss == api.forward(session).loss
    assert api.info(session).step == 1


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"session_id": "none"}, "SESSION_NOT_FOUND", "session_id"),
        ({"inputs": {}}, "MISSING_INPUT", "inputs"),
        ({"names": ["c"]}, "UNKNOWN_PARAMETER", "names[0]"),
        ({"max_elements": -1}, "INVALID_ARGUMENT", "max_elements"),
    ],
)
def test_what_cannot_be_checked_is_refused(api: Any, refused: Any, request_: Any, reason: str, field: str) -> None:
    request = pb.CheckGradientsRequest(**{"session_id": api.create(), "inputs": X, **request_})
    refusal = refused(lambda: api.stub.CheckGradients(request))
    assert (refusal.reason, refusal.field) == (reason, field)
