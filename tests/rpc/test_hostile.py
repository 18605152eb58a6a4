"""Whatever bytes arrive, the answer is a typed error, and other sessions are unharmed."""

import random
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.damaging import damaged

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2

X = {"x": tensors.encode(np.array([1.0, -2.0, 4.0]))}
UNARY = [
    *("CreateSession", "GetSession", "ListSessions", "DeleteSession", "GetStatus", "GetSessionHistory"),
    "DescribeSession",
    *("Forward", "Backward", "Step", "TrainStep"),
]
HOSTILE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tell(call: Any) -> str:
    """The name of the status that the call ended with."""
    code = grpc.StatusCode.OK
    try:
        call()
    except grpc.RpcError as error:
        code = error.code()
    assert code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
    return str(code.name)


@HOSTILE
@given(method=st.sampled_from(UNARY), data=st.binary(max_size=200))
def test_any_bytes_are_answered(api: Any, method: str, data: bytes) -> None:
    tell(lambda: api.raw(method)(data, timeout=20))


@HOSTILE
@given(seed=st.integers(0, 2**32))
def test_a_damaged_graph_is_refused_or_accepted_but_never_breaks_the_server(api: Any, graph: Any, seed: int) -> None:
    whole = pb.CreateSessionRequest(graph=graph(), seed=7).SerializeToString(deterministic=True)
    tell(lambda: api.raw("CreateSession")(damaged(whole, random.Random(seed)), timeout=20))


@HOSTILE
@given(seed=st.integers(0, 2**32))
def test_damaged_messages_of_a_stream_are_refused_and_the_server_lives(api: Any, seed: int) -> None:
    session = api.create()
    chunk = tensor_pb2.TensorChunk(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[3], data=bytes(24), crc32=1)
    requests = [
        pb.PipelineRequest(id=1, forward=pb.ForwardRequest(session_id=session, inputs=X, forward_id="p")),
        pb.PipelineRequest(id=2, backward=pb.BackwardRequest(session_id=session, forward_id="p", wrt=["x"])),
        pb.PipelineRequest(id=3, step=pb.StepRequest(session_id=session), dependency=pb.DEPENDENCY_PREVIOUS),
        pb.PipelineRequest(id=4, chunk=chunk),
        pb.PipelineRequest(id=4, train_step=pb.TrainStepRequest(session_id=session), max_response_bytes=9),
        pb.PipelineRequest(id=5, get_session=pb.GetSessionRequest(session_id=session)),
    ]
    messages = [
        damaged(request.SerializeToString(), random.Random(seed + number)) for number, request in enumerate(requests)
    ]
    call = api.channel.stream_stream("/backwire_api.v1.GradientService/Pipeline")
    for place in range(len(messages)):
        sent = [*(each.SerializeToString() for each in requests[:place]), *messages[place:]]
        tell(lambda sent=sent: list(call(iter(sent), timeout=20)))
    assert api.train(api.create()).result.step == 1
    assert not api.server.admission._request_bytes


@HOSTILE
@given(seed=st.integers(0, 2**32))
def test_damaged_calls_leave_another_session_alone(api: Any, seed: int) -> None:
    calm, victim = api.create(), api.create()
    before = api.train(calm).result
    forward_id = api.forward(victim).forward_id
    requests = {
        "Forward": pb.ForwardRequest(session_id=victim, inputs=X, outputs=["y"], forward_id="p"),
        "Backward": pb.BackwardRequest(session_id=victim, forward_id=forward_id, wrt=["x"], weight=0.5),
        "TrainStep": pb.TrainStepRequest(session_id=victim, inputs=X, options=pb.StepOptions(learning_rate=0.5)),
        "Step": pb.StepRequest(session_id=victim, options=pb.StepOptions(expected_step=0)),
    }
    for method, request in requests.items():
        data = damaged(request.SerializeToString(deterministic=True), random.Random(seed))
        tell(lambda method=method, data=data: api.raw(method)(data, timeout=20))
    assert api.info(calm).step == before.step
    assert api.train(calm).result.step == before.step + 1
    for session in (calm, victim):
        tell(lambda session=session: api.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session)))


DIMENSION = graph_pb2.Dimension
FLOAT = tensor_pb2.DATA_TYPE_FLOAT32


@pytest.mark.parametrize("shape", [[-1], [2**62], [2**32, 2**32], [2**63 - 1, 0], [1] * 33, [0, 2**62, 2**62]], ids=str)
@pytest.mark.parametrize("place", ["input", "parameter", "constant", "forward", "chunk"])
def test_impossible_shapes_are_refused_before_memory_is_taken(api: Any, shape: list[int], place: str) -> None:
    tensor = tensor_pb2.Tensor(dtype=FLOAT, shape=shape)
    drawn = graph_pb2.Initializer(dtype=FLOAT, shape=shape, distribution=graph_pb2.Initializer.DISTRIBUTION_NORMAL)
    if place == "input":
        item = graph_pb2.Input(name="x", dtype=FLOAT, shape=[DIMENSION(size=size) for size in shape])
        graph = graph_pb2.Graph(inputs=[item], outputs={"x": "x"})
        told = tell(lambda: api.create(graph))
        assert told in ("INVALID_ARGUMENT", "OK"), "an input that no tensor can have is harmless"
        return
    calls = {
        "parameter": lambda: api.create(graph_pb2.Graph(parameters=[graph_pb2.Parameter(name="p", initializer=drawn)])),
        "constant": lambda: api.create(graph_pb2.Graph(constants=[graph_pb2.Constant(name="k", value=tensor)])),
        "forward": lambda: api.stub.Forward(pb.ForwardRequest(session_id=api.create(), inputs={"x": tensor})),
        "chunk": lambda: api.stub.SetParameters(
            iter(
                [
                    pb.SetParametersRequest(
                        session_id=api.create(), chunk=tensor_pb2.TensorChunk(name="w", dtype=FLOAT, shape=shape)
                    )
                ]
            )
        ),
    }
    assert tell(calls[place]) in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("seconds", [2**62, 315_576_000_000, 365 * 86_400 + 1])
def test_a_lease_for_ages_is_refused(api: Any, refused: Any, seconds: int) -> None:
    request = pb.AttachSessionRequest(session_id=api.create(), holder="me", timeout=Duration(seconds=seconds))
    told = refused(lambda: api.stub.AttachSession(request, timeout=20))
    assert (told.reason, told.field) == ("INVALID_ARGUMENT", "timeout")


def test_a_very_long_chain_of_nodes_is_no_recursion(api: Any, graph: Any) -> None:
    links = [graph_pb2.Node(op="Add", inputs=[f"v{i}", "x"], outputs=[f"v{i + 1}"]) for i in range(3_000)]
    first = graph_pb2.Node(op="Add", inputs=["x", "x"], outputs=["v0"])
    chain = graph(nodes=[*graph().nodes, *reversed(links), first], outputs={"y": "v3000"})
    session = api.create(chain)
    answer = api.forward(session, mode=pb.MODE_EVAL)
    np.testing.assert_array_equal(tensors.decode(answer.outputs["y"]), 3_002 * np.array([1.0, -2.0, 4.0]))
