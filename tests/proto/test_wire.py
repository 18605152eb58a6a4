"""What wire writes, protobuf reads; whatever protobuf reads or refuses, wire reads alike or refuses too."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damaging import damaged

from backwire_api import chunk_stream, tensors, wire, wire_scan
from backwire_api.tensors import Array, RawTensor
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import tensor_pb2
from backwire_api.wire import Framed

MAPS: dict[type[Message], str] = {
    pb.ForwardRequest: "inputs",
    pb.ForwardResponse: "outputs",
    pb.BackwardRequest: "output_gradients",
    pb.BackwardResponse: "input_gradients",
    pb.TrainStepRequest: "inputs",
    pb.TrainStepResponse: "outputs",
    pb.CheckGradientsRequest: "inputs",
    pb.DescribeSessionRequest: "inputs",
}
CHUNKS = [pb.GetParametersResponse, pb.SetParametersRequest, pb.GetGradientsResponse]
DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "int64", "uint16", "bool"]
SHORT = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def every_message_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SCANNED_FROM", 0)


def arrays() -> st.SearchStrategy[Array]:
    shapes = st.lists(st.integers(0, 40), max_size=3)
    return st.builds(
        lambda shape, dtype: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype),
        shapes,
        st.sampled_from(DTYPES),
    )


NAMES = st.text(max_size=3) | st.sampled_from(["x", "labels", "a" * 200])
ARRAYS = st.dictionaries(NAMES, arrays(), max_size=3)
HEADS = {
    pb.ForwardRequest: st.builds(pb.ForwardRequest, session_id=NAMES, mode=st.integers(0, 3), outputs=st.lists(NAMES)),
    pb.TrainStepResponse: st.builds(pb.TrainStepResponse, loss=st.floats(allow_nan=False)),
    pb.BackwardRequest: st.builds(pb.BackwardRequest, weight=st.none() | st.floats(0, 1), retain=st.booleans()),
}


def whole(head: Message, values: dict[str, Array]) -> Any:
    """The message as its stock constructor makes it."""
    message = type(head).FromString(head.SerializeToString())
    for name, value in values.items():
        getattr(message, MAPS[type(head)])[name].CopyFrom(tensors.encode(value))
    return message


def split(message: Any, holder: Any, field: str) -> Framed[Any]:
    """A message that protobuf parsed, taken apart in the obvious way."""
    found = {
        name: RawTensor(each.dtype, tuple(each.shape), each.data)
        for name, each in (getattr(holder, field).items() if field in MAPS.values() else ())
    }
    if field in MAPS.values():
        holder.ClearField(field)
        return Framed(message, found)
    chunk = getattr(holder, field).data if holder.HasField(field) else b""
    if chunk:
        getattr(holder, field).ClearField("data")
    return Framed(message, {}, chunk)


def reference(kind: type[Message], data: bytes) -> Framed[Any]:
    message: Any = kind.FromString(data)
    return split(message, message, MAPS.get(kind, "chunk"))


def told(decode: Callable[..., Framed[Any]], *arguments: Any) -> Any:
    """Everything that there is to know of a decoded message, or that it was refused."""
    try:
        framed = decode(*arguments)
    except DecodeError:
        return "refused"
    found = {name: (each.dtype, each.shape, bytes(each.data)) for name, each in framed.tensors.items()}
    return framed.message, found, bytes(framed.chunk)


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


class Writer(random.Random):
    """Writes fields in forms that the encoding allows: everyday ones, and with probability `oddity` others."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.oddity = self.choice([0.0, 0.0, 0.02, 0.2])

    def odd(self) -> bool:
        return self.random() < self.oddity

    def number(self, value: int, longest: int = 10) -> bytes:
        """A varint, perhaps longer than it need be."""
        return wire_scan.varint(value, self.randint(1, longest) if self.odd() else 0)

    def sized(self, tag: int, content: bytes) -> bytes:
        return self.number(tag, 5) + self.number(len(content), 5) + content

    def fields(self, fields: list[bytes]) -> bytes:
        """The fields, perhaps shuffled, one left out, one twice, and with one that no message here has."""
        found = list(fields)
        if self.odd():
            self.shuffle(found)
        if found and self.odd():
            del found[self.randrange(len(found))]
        if found and self.odd():
            found.insert(self.randrange(len(found)), self.choice(fields))
        if self.odd():
            foreign = [b"\x78\x07", b"\xf9\x01abcdefgh", b"\x7dabcd", b"\xfb\x01\x08\x01\xfc\x01", b"\x7a\x02hi"]
            found.insert(self.randint(0, len(found)), self.choice(foreign))
        return b"".join(found)

    def tensor(self) -> bytes:
        shape = [self.randrange(400) for _ in range(self.randrange(4))]
        packed = self.sized(0x12, b"".join(map(self.number, shape)))
        unpacked = b"".join(b"\x10" + self.number(size) for size in shape)
        dtype = b"\x08" + self.number(self.randrange(2**64) if self.odd() else self.randrange(15))
        return self.fields([dtype, unpacked if self.odd() else packed, self.sized(0x1A, self.randbytes(200))])

    def entry(self) -> bytes:
        key = "x" if self.odd() else self.choice(["a", "größe", ""]) + str(self.randrange(100))
        return self.sized(0x12, self.fields([self.sized(0x0A, key.encode()), self.sized(0x12, self.tensor())]))

    def forward(self) -> bytes:
        """A ForwardRequest."""
        entries = [self.entry() for _ in range(self.randrange(4))]
        others = [self.sized(0x0A, b"session"), b"\x18" + self.number(self.randrange(3)), self.sized(0x22, b"y")]
        return self.fields([*others, *entries])


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
