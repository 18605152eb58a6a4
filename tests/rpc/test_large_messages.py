"""Messages whose tensors are taken in place: the same results, and nothing held that is not accounted for."""

from typing import Any

import numpy as np
import pytest

from backwire_api import tensors, wire
from backwire_api.tensors import Array
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, tensor_pb2
from backwire_api.wire import Framed

SIZE = wire.SCANNED_FROM // 4
FILLER = b"\x7a" + b"\x80\x80\x40" + bytes(1 << 20)  # an unknown field of 1 MiB


@pytest.fixture
def squares(api: Any) -> str:
    """A session with the output y = x * x, the loss sum(w * y), and a scalar parameter w = 3."""
    symbol = graph_pb2.Dimension(symbol="n")
    graph = graph_pb2.Graph(
        inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[symbol])],
        parameters=[graph_pb2.Parameter(name="w", value=tensors.encode(np.array(3.0)))],
        nodes=[
            graph_pb2.Node(op="Mul", inputs=["x", "x"], outputs=["y"]),
            graph_pb2.Node(op="Mul", inputs=["w", "y"], outputs=["z"]),
            graph_pb2.Node(
                op="ReduceSum", inputs=["z"], outputs=["loss"], attributes={"keepdims": graph_pb2.Attribute(integer=0)}
            ),
        ],
        outputs={"y": "y"},
        loss="loss",
    )
    return str(api.create(graph))


def written(x: Array, **fields: Any) -> bytes:
    return wire.encode(Framed(pb.ForwardRequest(**fields), {"x": tensors.encode_raw(x)}))


def stock(x: Array, **fields: Any) -> bytes:
    return pb.ForwardRequest(inputs={"x": tensors.encode(x)}, **fields).SerializeToString()


@pytest.mark.parametrize("encode", [written, stock], ids=["aligned", "as protobuf writes it"])
def test_a_large_pass_goes_forward_and_backward(api: Any, squares: str, encode: Any) -> None:
    x = np.arange(SIZE, dtype=np.float64)
    for extra in range(8):
        session_id, name = squares, "p" * (extra + 1)
        answer = pb.ForwardResponse.FromString(api.raw("Forward")(encode(x, session_id=session_id, forward_id=name)))
        np.testing.assert_array_equal(tensors.decode(answer.outputs["y"]), x * x)
        found = api.backward(session_id, name, wrt=["x"])
        np.testing.assert_array_equal(tensors.decode(found.input_gradients["x"]), 6 * x)


def test_a_pass_is_charged_for_the_whole_message_that_it_keeps_alive(api: Any, squares: str) -> None:
    request = written(np.zeros(SIZE), session_id=squares) + FILLER
    trainer = api.server._store.get(squares)._keeper.content.trainer
    api.raw("Forward")(request)
    assert trainer.passes.nbytes(trainer.parameters.buffers) >= len(request)


def test_a_large_mutation_is_known_again_whoever_encodes_it(api: Any, squares: str, refused: Any) -> None:
    x = np.arange(SIZE, dtype=np.float64)
    first = api.raw("Forward")(written(x, session_id=squares, request_id="r"))
    again = api.raw("Forward")(stock(x, session_id=squares, request_id="r"))
    assert pb.ForwardResponse.FromString(first) == pb.ForwardResponse.FromString(again)
    assert len(api.info(squares).forward_ids) == 1
    x[SIZE // 2] += 1e-9
    other = written(x, session_id=squares, request_id="r")
    assert refused(lambda: api.raw("Forward")(other)).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("end", [100, 1 << 18, -1])
def test_a_large_message_that_is_cut_short_is_refused(api: Any, squares: str, refused: Any, end: int) -> None:
    data = written(np.zeros(SIZE), session_id=squares)
    told = refused(lambda: api.raw("Forward")(data[:end]))
    assert told.reason == "INVALID_ARGUMENT"
    assert "ForwardRequest" in told.message


def test_a_large_tensor_with_the_wrong_shape_is_refused_by_its_name(api: Any, squares: str, refused: Any) -> None:
    raw = tensors.encode_raw(np.zeros(SIZE))._replace(shape=(SIZE + 1,))
    data = wire.encode(Framed(pb.ForwardRequest(session_id=squares), {"x": raw}))
    told = refused(lambda: api.raw("Forward")(data))
    assert (told.reason, told.field) == ("INVALID_TENSOR", "inputs[x]")
