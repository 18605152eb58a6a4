"""A file comes out of its chunks as it went in, and never a wrong one."""

import io
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_api.file_stream import CHUNK_BYTES, FileStreamError, decode_file, encode_file
from backwire_api.v1 import gradient_service_pb2 as pb


def chunks(size: int = 3 * CHUNK_BYTES) -> list[pb.FileChunk]:
    return list(encode_file([bytes(range(256)) * (size // 256)]))


@given(st.lists(st.binary(max_size=100)), st.integers(0, 3))
def test_a_file_survives_whatever_its_pieces(pieces: list[bytes], many: int) -> None:
    pieces = [*pieces, *[b"x" * (CHUNK_BYTES // 2 + 1)] * many]
    parts, file = list(encode_file(pieces)), io.BytesIO()
    told = decode_file(parts, file)
    assert file.getvalue() == b"".join(pieces)
    assert (told.total_bytes, told.crc32) == (len(file.getvalue()), zlib.crc32(file.getvalue()))
    assert [each.last for each in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(each.data) == CHUNK_BYTES for each in parts[:-1])


def damaged(change: Callable[[list[pb.FileChunk]], object]) -> list[pb.FileChunk]:
    found = chunks()
    change(found)
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.pop(), "broke off after 2,097,152 bytes"),
        (lambda found: found.clear(), "broke off after 0 bytes"),
        (lambda found: found.pop(1), "begins at byte 2,097,152 where 1,048,576 should follow"),
        (lambda found: found.append(found[-1]), "follows the one marked as the last"),
        (lambda found: setattr(found[1], "data", bytes(CHUNK_BYTES)), "damaged on its way"),
        (lambda found: setattr(found[-1], "total_bytes", 1), "damaged on its way"),
        (lambda found: setattr(found[0], "offset", -1), "begins at byte -1"),
    ],
)
def test_a_stream_that_is_not_whole_is_refused(change: Callable[[list[pb.FileChunk]], object], words: str) -> None:
    with pytest.raises(FileStreamError, match=words):
        decode_file(damaged(change), io.BytesIO())


def test_no_more_is_written_than_may_be() -> None:
    file = io.BytesIO()
    with pytest.raises(FileStreamError, match="more than 2,000,000 bytes"):
        decode_file(chunks(), file, 2_000_000)
    assert len(file.getvalue()) <= 2_000_000
    assert decode_file(chunks(), io.BytesIO(), 3 * CHUNK_BYTES).last
