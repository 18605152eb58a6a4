"""Tensors put together from chunks that come one by one: whole ones come out, and damaged ones are refused."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from backwire_api import chunk_stream
from backwire_api.checksum import crc32
from backwire_api.chunk_stream import OVERHEAD_BYTES, Assembler, RawChunk, encode_chunks
from backwire_api.tensors import Array, TensorError
from backwire_api.v1 import tensor_pb2

NO_LIMIT = 1 << 40

ARRAYS: dict[str, Array] = {
    "several chunks": np.arange(10, dtype=np.float32),
    "an element across two chunks": np.arange(9, dtype=np.uint8).reshape(3, 3),
    "a scalar": np.array(2.5),
    "no element": np.zeros((3, 0, 2), np.int64),
    "a transposed view": np.arange(6.0).reshape(2, 3).T,
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False] * 7),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_stream, "CHUNK_BYTES", 8)


def put_together(chunks: list[RawChunk], limit: int = NO_LIMIT) -> dict[str, Array]:
    assembler = Assembler(limit)
    for head, data in chunks:
        assembler.add(head, data)
    return assembler.finish()


def test_tensors_come_out_as_they_went_in() -> None:
    arrived = put_together([chunk for name, array in ARRAYS.items() for chunk in encode_chunks(name, array)])
    assert list(arrived) == list(ARRAYS)
    for name, sent in ARRAYS.items():
        np.testing.assert_array_equal(arrived[name], sent)
        assert arrived[name].dtype == sent.dtype.newbyteorder("<")
        assert arrived[name].flags.writeable
        assert arrived[name].flags.c_contiguous


def test_checksums_are_those_of_zlib_whichever_implementation_is_installed() -> None:
    assembler = Assembler(NO_LIMIT)
    for head, data in encode_chunks("w", ARRAYS["several chunks"]):
        assembler.add(head, data)
    assert assembler.checksums == {"w": zlib.crc32(ARRAYS["several chunks"].tobytes())}
    assert crc32(b"123456789") == 0xCBF43926
    assert crc32(b"6789", crc32(b"12345")) == 0xCBF43926


def damaged(place: int, **changes: object) -> list[RawChunk]:
    chunks = list(encode_chunks("w", ARRAYS["several chunks"]))
    head, data = chunks[place]
    for field, value in changes.items():
        if field == "shape":
            head.shape[:] = value  # type: ignore[call-overload]
        elif field == "data":
            data = value  # type: ignore[assignment]
        elif value is None:
            head.ClearField(field)  # type: ignore[arg-type]
        else:
            setattr(head, field, value)
    chunks[place] = RawChunk(head, data)
    return chunks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: damaged(-1, crc32=7), "checksum"),
        (lambda: damaged(-1, crc32=None), "checksum"),
        (lambda: damaged(1, data=b"damaged!"), "checksum"),
        (lambda: damaged(1, data=b"short"), "continue"),
        (lambda: damaged(1, data=b""), "empty"),
        (lambda: damaged(-1, data=b"much too long"), "continue"),
        (lambda: damaged(1, offset=0), "continue"),
        (lambda: damaged(1, name="v"), "cut short"),
        (lambda: damaged(1, shape=[11]), "cut short"),
        (lambda: damaged(1, dtype=tensor_pb2.DATA_TYPE_INT32), "cut short"),
        (lambda: damaged(0, dtype=99), "dtype 99"),
        (lambda: damaged(0, shape=[-1]), "negative"),
        (lambda: damaged(0, shape=[1 << 62, 1 << 62]), "too large"),
        (lambda: damaged(0)[:-1], "cut short"),
        (lambda: damaged(0) * 2, "twice"),
    ],
)
def test_damage_is_refused(make: Callable[[], list[RawChunk]], message: str) -> None:
    chunks = make()
    with pytest.raises(TensorError, match=message):
        put_together(chunks)


def test_the_limit_holds_for_all_tensors_together_before_memory_is_taken() -> None:
    room = 80 + 2 * OVERHEAD_BYTES
    two = [chunk for name in "ab" for chunk in encode_chunks(name, ARRAYS["several chunks"])]
    assert set(put_together(two, room)) == {"a", "b"}
    with pytest.raises(TensorError, match="exceed"):
        put_together(two, room - 1)
    huge = tensor_pb2.TensorChunk(name="w", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1 << 50])
    with pytest.raises(TensorError, match="exceed"):
        put_together([RawChunk(huge, b"1234")])


def test_tensors_without_elements_count_too() -> None:
    empty = [chunk for number in range(100) for chunk in encode_chunks(str(number), np.zeros(0))]
    with pytest.raises(TensorError, match="exceed"):
        put_together(empty, 50 * OVERHEAD_BYTES)
