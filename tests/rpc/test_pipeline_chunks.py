"""Tensors beyond the message limit travel in chunks on a Pipeline stream, in both directions, and are checked."""

from typing import Any

import grpc
import numpy as np
import pytest

from backwire_api import chunk_stream, tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2

LIMIT = 4 << 20
LARGE = np.random.default_rng(5).standard_normal(1_500_007).astype(np.float32)  # 6 MB, not a whole number of chunks
FLOAT = tensor_pb2.DATA_TYPE_FLOAT32


def scaling() -> graph_pb2.Graph:
    """The outputs `y = w * x` of any length, and `same = x` as they came; the loss is the mean of y."""
    return graph_pb2.Graph(
        inputs=[graph_pb2.Input(name="x", dtype=FLOAT, shape=[graph_pb2.Dimension(symbol="n")])],
        parameters=[graph_pb2.Parameter(name="w", value=tensors.encode(np.float32(2.0)))],
        nodes=[
            graph_pb2.Node(op="Mul", inputs=["x", "w"], outputs=["y"]),
            graph_pb2.Node(
                op="ReduceMean", inputs=["y"], outputs=["loss"], attributes={"keepdims": graph_pb2.Attribute(integer=0)}
            ),
        ],
        outputs={"y": "y"},
        loss="loss",
    )


@pytest.fixture
def small(serve: Any) -> Any:
    return serve(max_message_bytes=LIMIT, max_pass_bytes=64 << 20)


def read(answers: list[pb.PipelineResponse]) -> tuple[list[pb.PipelineResponse], dict[int, dict[str, Any]]]:
    """Returns the answers, and the tensors that came in chunks before them, by id and name."""
    found: dict[int, list[tensor_pb2.TensorChunk]] = {}
    last = []
    for answer in answers:
        if answer.WhichOneof("kind") == "chunk":
            assert len(answer.chunk.data) <= LIMIT
            found.setdefault(answer.id, []).append(answer.chunk)
        else:
            last.append(answer)
    arrays = {
        number: dict(chunk_stream.decode_chunks(((chunk, chunk.data) for chunk in chunks), 1 << 30))
        for number, chunks in found.items()
    }
    return last, arrays


def train(session: str, **fields: Any) -> pb.TrainStepRequest:
    return pb.TrainStepRequest(session_id=session, **fields)


def test_large_tensors_go_both_ways(small: Any, converse: Any) -> None:
    session, stream = small.create(scaling()), converse(small)
    stream.chunks("x", LARGE)
    one = stream.send(forward=pb.ForwardRequest(session_id=session, forward_id="a"))
    stream.chunks("y", LARGE[::-1])
    two = stream.send(backward=pb.BackwardRequest(session_id=session, forward_id="a", wrt=["x"]))
    stream.chunks("x", LARGE)
    three = stream.send(train_step=train(session, outputs=["y"], options=pb.StepOptions(learning_rate=0.0)))
    answers, arrays = read(stream.answers())
    assert [answer.WhichOneof("kind") for answer in answers] == ["forward", "backward", "train_step"]
    assert not answers[0].forward.outputs
    for number, name, expected in ((one, "y", LARGE * 2), (two, "x", LARGE[::-1] * 2), (three, "y", LARGE * 2)):
        np.testing.assert_array_equal(arrays[number][name], expected)


def test_the_results_are_those_of_a_server_that_takes_them_in_one_message(
    small: Any, serve: Any, converse: Any
) -> None:
    roomy = serve()
    one, other, stream = small.create(scaling()), roomy.create(scaling()), converse(small)
    stream.chunks("x", LARGE)
    stream.send(train_step=train(one, outputs=["y"]))
    answers, arrays = read(stream.answers())
    whole = roomy.train(other, LARGE, outputs=["y"])
    assert answers[0].train_step.result == whole.result
    assert answers[0].train_step.loss == whole.loss
    assert arrays[1]["y"].tobytes() == whole.outputs["y"].data
    assert small.parameters(one)["w"].tobytes() == roomy.parameters(other)["w"].tobytes()


def test_small_tensors_come_in_one_message_and_smaller_ones_if_the_client_says_so(small: Any, converse: Any) -> None:
    session, stream = small.create(scaling()), converse(small)
    inputs = {"x": tensors.encode(LARGE[:5_000])}
    request = pb.ForwardRequest(session_id=session, inputs=inputs, mode=pb.MODE_EVAL)
    stream.send(forward=request)
    stream.send(forward=request, max_response_bytes=10_000)
    answers, arrays = read(stream.answers())
    assert answers[0].forward.outputs["y"].data == arrays[2]["y"].tobytes()
    assert not answers[1].forward.outputs


def test_a_call_whose_answer_is_too_large_changes_nothing_and_names_the_remedy(small: Any, refused: Any) -> None:
    session = small.create(scaling())
    x = LARGE[: LIMIT // 4 - 500]
    told = refused(lambda: small.train(session, x, outputs=["y", "loss"]))
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "Pipeline" in told.message
    assert small.info(session).step == 0


def test_a_chunked_request_repeated_as_a_call_gets_the_first_answer(serve: Any, converse: Any) -> None:
    api = serve()
    session, stream = api.create(scaling()), converse(api)
    stream.chunks("x", LARGE)
    stream.send(train_step=train(session, request_id="r", outputs=["y"]), max_response_bytes=1_000)
    answers, arrays = read(stream.answers())
    again = api.train(session, LARGE, request_id="r", outputs=["y"])
    assert again.result == answers[0].train_step.result
    assert again.outputs["y"].data == arrays[1]["y"].tobytes()
    assert api.info(session).step == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"crc32": 1},
        {"data": b"1234"},
        {"offset": 0},
        {"name": "z"},
        {"shape": [7]},
        {"dtype": tensor_pb2.DATA_TYPE_INT8},
    ],
    ids=str,
)
def test_damaged_chunks_are_refused_with_their_request_alone(
    small: Any, converse: Any, failure: Any, changes: dict[str, Any]
) -> None:
    session, stream = small.create(scaling()), converse(small)
    shape = changes.pop("shape", None)
    chunks = [
        tensor_pb2.TensorChunk(name=head.name, dtype=head.dtype, shape=head.shape, offset=head.offset, data=bytes(data))
        for head, data in chunk_stream.encode_chunks("x", LARGE)
    ]
    for place, value in changes.items():
        setattr(chunks[-1], place, value)
    if shape:
        chunks[-1].shape[:] = shape
    for chunk in chunks:
        stream._outbox.put(pb.PipelineRequest(id=1, chunk=chunk))
    stream.send(train_step=train(session))
    stream.chunks("x", LARGE)
    stream.send(train_step=train(session))
    answers = stream.answers()
    assert failure(answers[0])[0] == "INVALID_TENSOR"
    assert answers[1].train_step.result.step == 1


def test_a_tensor_cut_short_fails_its_request(small: Any, converse: Any, failure: Any) -> None:
    session, stream = small.create(scaling()), converse(small)
    head, data = next(chunk_stream.encode_chunks("x", LARGE))
    head.data = bytes(data)
    stream._outbox.put(pb.PipelineRequest(id=1, chunk=head))
    stream.send(train_step=train(session))
    answers = stream.answers()
    assert failure(answers[0])[0] == "INVALID_TENSOR"
    assert "cut short" in answers[0].error.message


def test_chunks_without_their_request_end_the_stream(small: Any, converse: Any, refused: Any) -> None:
    session = small.create(scaling())
    for follow in (False, True):
        stream = converse(small)
        stream.chunks("x", LARGE)
        if follow:
            stream.send(7, train_step=train(session))
        assert refused(stream.answers).reason == "INVALID_ARGUMENT"
    assert small.info(session).step == 0


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ([1 << 40], "MESSAGE_TOO_LARGE"),
        ([1 << 62], "INVALID_TENSOR"),
        ([-1], "INVALID_TENSOR"),
        ([5_000_000, 4], "INVALID_TENSOR"),
    ],
)
def test_what_is_announced_is_checked_before_memory_is_taken(
    small: Any, converse: Any, failure: Any, shape: list[int], reason: str
) -> None:
    session, stream = small.create(scaling()), converse(small)
    chunk = tensor_pb2.TensorChunk(name="x", dtype=FLOAT, shape=shape, data=b"1234")
    stream._outbox.put(pb.PipelineRequest(id=1, chunk=chunk))
    stream.send(train_step=train(session))
    assert failure(stream.answers()[0])[0] == reason
    assert not small.server.admission._request_bytes


def test_chunks_belong_to_requests_with_a_place_for_them(small: Any, converse: Any, failure: Any) -> None:
    session, stream = small.create(scaling()), converse(small)
    stream.chunks("x", LARGE[:10])
    stream.send(step=pb.StepRequest(session_id=session))
    stream.chunks("x", LARGE[:10])
    stream.send(train_step=train(session, inputs={"x": tensors.encode(LARGE[:10])}))
    stream.chunks("x", LARGE[:10])
    stream.chunks("x", LARGE[:10])
    stream.send(train_step=train(session))
    stream.chunks("other", LARGE[:10])
    stream.send(train_step=train(session), dependency=pb.DEPENDENCY_NONE)
    reasons = [failure(answer)[0] for answer in stream.answers()]
    assert reasons == ["INVALID_TENSOR"] * 3 + ["UNKNOWN_INPUT"]


def test_requests_larger_than_the_window_still_pass(serve: Any, converse: Any) -> None:
    api = serve(max_message_bytes=LIMIT, max_pipeline_bytes=1 << 20, max_pass_bytes=64 << 20)
    session, stream = api.create(scaling()), converse(api)
    for _ in range(4):
        stream.chunks("x", LARGE)
        stream.send(train_step=train(session))
    assert [answer.train_step.result.step for answer in stream.answers()] == [1, 2, 3, 4]
    assert not api.server.admission._request_bytes


def test_a_tensor_without_elements_is_a_chunk(api: Any, converse: Any) -> None:
    session, stream = api.create(scaling()), converse(api)
    stream.chunks("x", LARGE[:0])
    stream.send(forward=pb.ForwardRequest(session_id=session, mode=pb.MODE_EVAL, outputs=["y"]), max_response_bytes=1)
    answers, arrays = read(stream.answers())
    assert answers[0].WhichOneof("kind") == "forward"
    assert arrays[1]["y"].shape == (0,)
