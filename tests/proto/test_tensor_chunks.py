"""Streams of chunked tensors: whole tensors come out, and a stream that is torn, shuffled or too long is refused."""

import resource
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_api import chunk_stream
from backwire_api.chunk_stream import Assembler, RawChunk, decode_chunks, encode_chunks
from backwire_api.tensors import Array, TensorError
from backwire_api.v1 import tensor_pb2

NO_LIMIT = 1 << 40


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_stream, "CHUNK_BYTES", 8)


def chunks(array: Array, name: str = "w") -> list[RawChunk]:
    return list(encode_chunks(name, array))


def received(stream: list[RawChunk], limit: int = NO_LIMIT) -> list[tuple[str, Array]]:
    return list(decode_chunks(stream, limit))


ARRAYS: dict[str, Array] = {
    "several chunks": np.arange(10, dtype=np.float32),
    "exactly two chunks": np.arange(4, dtype=np.float32),
    "an element across two chunks": np.arange(9, dtype=np.uint8).reshape(3, 3),
    "one element": np.array([7], np.int8),
    "a scalar": np.array(2.5),
    "no element": np.zeros((3, 0, 2), np.int64),
    "a transposed view": np.arange(6.0).reshape(2, 3).T,
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False] * 7),
}


def test_the_parts_written_by_hand_are_a_tensor() -> None:
    ((name, value),) = received([FIRST, SECOND, LAST])
    assert (name, value.tolist()) == ("w", [0, 1, 2, 3, 4])


def test_a_stream_of_many_tensors_arrives_in_order() -> None:
    stream = [chunk for name, array in ARRAYS.items() for chunk in encode_chunks(name, array)]
    arrived = received(stream)
    assert [name for name, _ in arrived] == list(ARRAYS)
    for (_, value), sent in zip(arrived, ARRAYS.values(), strict=True):
        np.testing.assert_array_equal(value, sent)
        assert (value.shape, value.dtype) == (sent.shape, sent.dtype.newbyteorder("<"))


def test_received_arrays_are_writable_and_independent() -> None:
    one, two = (value for _, value in received(chunks(np.zeros(3)) + chunks(np.zeros(3), "v")))
    one[:] = 1
    assert not two.any()


def test_a_chunk_holds_no_more_than_it_may_and_only_the_last_has_the_checksum() -> None:
    parts = chunks(np.arange(5, dtype=np.float32))
    assert [(part.head.offset, len(part.data)) for part in parts] == [(0, 8), (8, 8), (16, 4)]
    assert [part.head.HasField("crc32") for part in parts] == [False, False, True]


@given(st.lists(st.integers(0, 40), max_size=4))
def test_tensors_of_any_length_follow_one_another(lengths: list[int]) -> None:
    sent = [np.arange(length, dtype=np.uint8) for length in lengths]
    stream = [chunk for index, array in enumerate(sent) for chunk in encode_chunks(str(index), array)]
    assert [value.tolist() for _, value in received(stream)] == [array.tolist() for array in sent]


DATA = np.arange(5, dtype=np.float32).tobytes()
HEAD: dict[str, Any] = {"name": "w", "dtype": tensor_pb2.DATA_TYPE_FLOAT32, "shape": [5]}


def part(begin: int, end: int, **changes: Any) -> RawChunk:
    """Bytes `begin` to `end` of the tensor in DATA, written by hand; a change of None leaves the field out."""
    fields = HEAD | {"offset": begin, "data": DATA[begin:end], "crc32": zlib.crc32(DATA) if end == 20 else None}
    given = {name: value for name, value in (fields | changes).items() if value is not None}
    data = given.pop("data", b"")
    return RawChunk(tensor_pb2.TensorChunk(**given), data)


FIRST, SECOND, LAST = part(0, 8), part(8, 16), part(16, 20)
OTHER = [part(0, 8, name="v"), part(8, 16, name="v"), part(16, 20, name="v")]

TORN = {
    "the end is missing": ([FIRST, SECOND], "'w' is cut short at byte 16 of 20"),
    "the middle is missing": ([FIRST, LAST], "does not continue byte 8 of 20"),
    "the beginning is missing": ([SECOND, LAST], "does not continue byte 0 of 20"),
    "out of order": ([FIRST, LAST, SECOND], "does not continue byte 8"),
    "a chunk comes twice": ([FIRST, SECOND, SECOND, LAST], "does not continue byte 16"),
    "overlapping": ([FIRST, part(8, 16, offset=4)], "at offset 4 does not continue byte 8"),
    "beyond the end": ([FIRST, SECOND, part(16, 20, data=b"\0" * 5)], "does not continue byte 16 of 20"),
    "a negative offset": ([part(0, 8, offset=-8)], "does not continue"),
    "an empty chunk": ([FIRST, part(8, 16, data=None)], "without gaps or empty ones"),
    "another tensor begins early": ([FIRST, SECOND, OTHER[0]], "'w' is cut short at byte 16"),
    "interleaved": ([FIRST, OTHER[0], SECOND, OTHER[1]], "'w' is cut short at byte 8"),
    "the shape changes": ([FIRST, part(8, 16, shape=[6])], "'w' is cut short"),
    "the dtype changes": ([FIRST, part(8, 16, dtype=tensor_pb2.DATA_TYPE_INT32)], "'w' is cut short"),
    "a flipped bit": ([FIRST, part(8, 16, data=b"\1" * 8), LAST], "checksum"),
    "a wrong checksum": ([FIRST, SECOND, part(16, 20, crc32=1)], "checksum"),
    "no checksum": ([FIRST, SECOND, part(16, 20, crc32=None)], "missing checksum"),
    "no dtype": ([part(0, 8, dtype=None)], "not a known DataType"),
    "a negative dimension": ([part(0, 8, shape=[-5])], "negative"),
    "a shape that wraps": ([part(0, 8, shape=[2**32, 2**32])], "too large"),
    "a bool that is 2": (
        [part(0, 1, dtype=tensor_pb2.DATA_TYPE_BOOL, shape=[1], data=b"\2", crc32=zlib.crc32(b"\2"))],
        "neither 0 nor 1",
    ),
}


@pytest.mark.parametrize(("stream", "message"), TORN.values(), ids=TORN)
def test_a_torn_stream_is_refused(stream: list[RawChunk], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        received(stream)


def test_whole_tensors_before_the_tear_are_delivered() -> None:
    arrived = decode_chunks([*OTHER, FIRST], NO_LIMIT)
    assert next(arrived)[0] == "v"
    with pytest.raises(TensorError, match="cut short"):
        next(arrived)


def test_the_limit_counts_all_tensors_of_the_stream_and_is_inclusive() -> None:
    stream = [FIRST, SECOND, LAST, *OTHER]
    assert len(received(stream, limit=40)) == 2
    with pytest.raises(TensorError, match=r"exceed 39 bytes at 'v'; send less at a time"):
        received(stream, limit=39)


def test_memory_beyond_the_limit_is_never_taken() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TensorError, match="exceed 1,048,576 bytes"):
            received([part(0, 8, shape=[1 << 36])], limit=1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_memory_is_filled_by_what_has_arrived_not_by_what_was_announced() -> None:
    before = _resident()
    arrived = Assembler(NO_LIMIT)
    assert not arrived.add(*part(0, 8, shape=[1 << 28]))
    assert _resident() - before < 64 << 20
    with pytest.raises(TensorError, match="cut short at byte 8 of 1073741824"):
        arrived.finish()


def _resident() -> int:
    """Returns the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
