"""What wire writes, protobuf reads; whatever protobuf reads or refuses, wire reads alike or refuses too."""

import random
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damaging import damaged
from tests.proto.legal_encodings import Writer
from tests.proto.wire_reference import ARRAYS, HEADS, MAPS, reference, split, told, whole

from backwire_api import chunk_stream, tensors, wire, wire_scan
from backwire_api.tensors import Array
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import tensor_pb2
from backwire_api.wire import Framed

CHUNKS = [pb.GetParametersResponse, pb.SetParametersRequest, pb.GetGradientsResponse]
SHORT = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def every_message_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SCANNED_FROM", 0)


@SHORT
@given(data=st.data(), kind=st.sampled_from(list(HEADS)), values=ARRAYS)
def test_protobuf_reads_what_is_written(data: st.DataObject, kind: type[Message], values: dict[str, Array]) -> None:
    head = data.draw(HEADS[kind])
    written = wire.encode(Framed(head, {name: tensors.encode_raw(value) for name, value in values.items()}))
    assert kind.FromString(written) == whole(head, values)


@SHORT
@given(data=st.data(), kind=st.sampled_from(list(HEADS)), values=ARRAYS)
def test_what_protobuf_writes_is_read(data: st.DataObject, kind: type[Message], values: dict[str, Array]) -> None:
    head = data.draw(HEADS[kind])
    framed = wire.decode(kind, whole(head, values).SerializeToString())
    assert framed.message == head
    assert framed.tensors.keys() == values.keys()
    for name, raw in framed.tensors.items():
        found = tensors.decode(raw)
        assert (found.dtype, found.shape) == (values[name].dtype, values[name].shape)
        assert found.tobytes() == values[name].tobytes()
        assert not found.flags.writeable
        assert found.flags.aligned


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("array", [np.arange(500.0), np.zeros(0, np.int8)], ids=["full", "empty"])
def test_chunks_are_read_and_written(kind: Any, array: Array) -> None:
    ((chunk, data),) = chunk_stream.encode_chunks("w", array)
    written = wire.encode(Framed(kind(chunk=chunk), chunk=data))
    stock = kind.FromString(written)
    assert stock.chunk.data == array.tobytes()
    framed = wire.decode(kind, stock.SerializeToString())
    assert (framed.message.chunk, bytes(framed.chunk)) == (chunk, array.tobytes())


def nested(forward: pb.ForwardRequest, **fields: Any) -> pb.PipelineRequest:
    return pb.PipelineRequest(forward=forward, **fields)


@pytest.mark.parametrize("size", [3, 30_000])
def test_a_message_in_a_oneof_has_tensors_too(size: int) -> None:
    x, head = np.arange(size, dtype=np.float64), pb.ForwardRequest(session_id="s", outputs=["y"])
    written = wire.encode(Framed(nested(head, id=7), {"x": tensors.encode_raw(x)}))
    assert pb.PipelineRequest.FromString(written) == nested(whole(head, {"x": x}), id=7)
    framed = wire.decode(pb.PipelineRequest, written)
    assert framed.message == nested(head, id=7)
    np.testing.assert_array_equal(tensors.decode(framed.tensors["x"]), x)


def test_a_chunk_in_a_oneof_is_one() -> None:
    ((chunk, data),) = chunk_stream.encode_chunks("x", np.arange(9.0))
    written = wire.encode(Framed(pb.PipelineRequest(id=7, chunk=chunk), chunk=data))
    framed = wire.decode(pb.PipelineRequest, written)
    assert (framed.message, bytes(framed.chunk)) == (pb.PipelineRequest(id=7, chunk=chunk), np.arange(9.0).tobytes())


X: dict[str, Array] = {"x": np.arange(40, dtype=np.float32), "n": np.arange(3)}
FORWARD = whole(pb.ForwardRequest(session_id="s"), X)
CHUNK = tensor_pb2.TensorChunk(name="x", data=b"1234")
MEMBERS = {
    "another": [nested(FORWARD), pb.PipelineRequest(step=pb.StepRequest(session_id="s"))],
    "another with tensors": [nested(FORWARD), pb.PipelineRequest(backward=pb.BackwardRequest(session_id="s"))],
    "the same": [nested(FORWARD), nested(pb.ForwardRequest(outputs=["y"]))],
    "the same after another": [nested(FORWARD), pb.PipelineRequest(step=pb.StepRequest()), nested(FORWARD)],
    "a chunk": [nested(FORWARD), pb.PipelineRequest(chunk=CHUNK)],
    "a request after a chunk": [pb.PipelineRequest(chunk=CHUNK), pb.PipelineRequest(step=pb.StepRequest())],
    "two chunks": [pb.PipelineRequest(chunk=CHUNK), pb.PipelineRequest(chunk=tensor_pb2.TensorChunk(name="y"))],
}


@pytest.mark.parametrize("messages", MEMBERS.values(), ids=MEMBERS)
def test_the_last_member_of_a_oneof_replaces_or_joins_those_before(messages: list[Message]) -> None:
    data = b"".join(each.SerializeToString() for each in messages)
    message: Any = pb.PipelineRequest.FromString(data)
    field = {"forward": "inputs", "backward": "output_gradients"}.get(message.WhichOneof("kind"), "chunk")
    holder = message if field == "chunk" else getattr(message, message.WhichOneof("kind"))
    assert told(wire.decode, pb.PipelineRequest, data) == told(split, message, holder, field)


SAMPLES = [
    FORWARD,
    whole(pb.BackwardRequest(forward_id="p", weight=0.5), X),
    whole(pb.TrainStepResponse(loss=1, result=pb.StepResult(step=3)), X),
    pb.SetParametersRequest(session_id="s", chunk=chunk_stream.encode_chunks("w", X["x"]).__next__().head),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda each: type(each).__name__)
def test_damaged_messages_are_judged_as_protobuf_judges_them(sample: Message) -> None:
    draw, data, kind = random.Random(7), sample.SerializeToString(), type(sample)
    refused = 0
    for _ in range(3_000):
        hostile = damaged(data, draw)
        expected = told(reference, kind, hostile)
        assert told(wire.decode, kind, hostile) == expected, hostile.hex()
        refused += expected == "refused"
    assert 300 < refused < 2_900


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda each: type(each).__name__)
def test_every_truncation_is_judged_as_protobuf_judges_it(sample: Message) -> None:
    data, kind = sample.SerializeToString(), type(sample)
    for end in range(len(data)):
        expected = told(reference, kind, data[:end])
        assert told(wire.decode, kind, data[:end]) == expected


def scans(kind: type[Message], data: bytes) -> bool:
    """Whether the message was taken apart without leaving it to protobuf."""
    try:
        return wire_scan.Scan(data).rest(wire._layout(kind.DESCRIPTOR)) != data
    except wire_scan.Unusual:
        return False


def test_any_legal_encoding_is_read_as_protobuf_reads_it() -> None:
    scanned = 0
    for seed in range(4_000):
        data = Writer(seed).forward()
        expected = told(reference, pb.ForwardRequest, data)
        assert told(wire.decode, pb.ForwardRequest, data) == expected, data.hex()
        scanned += scans(pb.ForwardRequest, data)
    assert 1_500 < scanned < 3_500, "both ways are taken"


@SHORT
@given(data=st.binary(max_size=60))
def test_any_bytes_are_judged_as_protobuf_judges_them(data: bytes) -> None:
    for kind in (pb.ForwardRequest, pb.SetParametersRequest):
        assert told(wire.decode, kind, data) == told(reference, kind, data)


def test_large_tensors_are_views_of_the_message_and_small_messages_are_not_scanned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    for size, shared in ((100, False), (wire.SCANNED_FROM, True)):
        value = np.zeros(size, np.float64)
        data = wire.encode(Framed(pb.ForwardRequest(session_id="s"), {"x": tensors.encode_raw(value)}))
        found = tensors.decode(wire.decode(pb.ForwardRequest, data).tensors["x"])
        assert np.shares_memory(found, np.frombuffer(data, np.uint8)) is shared


@pytest.mark.parametrize("name", ["x", "xy", "abc", "abcdefg"])
@pytest.mark.parametrize("position", range(8))
def test_large_tensors_are_written_where_a_reader_wants_them(name: str, position: int) -> None:
    values = {name: tensors.encode_raw(np.zeros(1 << 12)), "n" * position: tensors.encode_raw(np.ones(1 << 10))}
    framed = wire.decode(pb.ForwardRequest, wire.encode(Framed(pb.ForwardRequest(session_id="s" * position), values)))
    for raw in framed.tensors.values():
        assert np.shares_memory(tensors.decode(raw), raw.data), "it did not have to be moved"


def test_a_misplaced_tensor_is_copied_to_where_it_is_aligned() -> None:
    request = whole(pb.ForwardRequest(session_id="s"), {"x": np.arange(1_000.0)})
    for extra in range(8):
        request.session_id = "s" * extra
        found = tensors.decode(wire.decode(pb.ForwardRequest, request.SerializeToString()).tensors["x"])
        assert found.flags.aligned
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, np.arange(1_000.0))


def test_every_view_is_seen_to_keep_the_whole_message() -> None:
    values = {name: tensors.encode_raw(np.zeros(1 << 12)) for name in "ab"}
    data = wire.encode(Framed(pb.ForwardRequest(), values))
    a, b = map(tensors.decode, wire.decode(pb.ForwardRequest, data).tensors.values())
    assert a.base is b.base is not None
    assert isinstance(a.base, np.ndarray)
    assert a.base.nbytes == len(data)


def test_a_message_of_very_many_fields_is_left_to_protobuf() -> None:
    data = whole(pb.ForwardRequest(), X).SerializeToString() + b"\x18\x01" * 100_000
    with pytest.raises(wire_scan.Unusual):
        wire_scan.Scan(data).rest(wire._layout(pb.ForwardRequest.DESCRIPTOR))
    assert told(wire.decode, pb.ForwardRequest, data) == told(reference, pb.ForwardRequest, data)


def test_all_messages_with_maps_of_tensors_or_chunks_are_known() -> None:
    kinds = [getattr(pb, name) for name in pb.DESCRIPTOR.message_types_by_name]
    with_bulk = {kind for kind in kinds if wire.has_bulk(kind)}
    assert with_bulk == {*MAPS, *CHUNKS, pb.PipelineRequest, pb.PipelineResponse}
