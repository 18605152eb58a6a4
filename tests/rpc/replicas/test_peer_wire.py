"""Chunks that are written and read by hand are those of the contract."""

import pytest
from google.protobuf.message import DecodeError

from backwire_api.v1 import peer_pb2
from backwire_server.rpc.replicas.peer_wire import (
    CHUNK_BYTES,
    Chunk,
    chunks,
    read_request,
    read_response,
    write_request,
    write_response,
)


def content(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, CHUNK_BYTES])
def test_a_chunk_is_written_and_read_as_protobuf_does(size: int) -> None:
    data = content(size)
    request, response = peer_pb2.ComputePartsRequest(chunk=data), peer_pb2.ComputePartsResponse(chunk=data)
    assert write_request(Chunk(memoryview(data))) == request.SerializeToString()
    assert write_response(Chunk(memoryview(data))) == response.SerializeToString()
    for found in (read_request(request.SerializeToString()), read_response(response.SerializeToString())):
        assert isinstance(found, Chunk)
        assert found.data == data


def test_a_chunk_that_is_written_in_an_unusual_way_is_one() -> None:
    data = content(300)
    message = peer_pb2.ComputePartsRequest(chunk=data).SerializeToString()
    unknown = b"\xf8\x07\x01"  # field 127
    for unusual in (message + unknown, unknown + message):
        found = read_request(unusual)
        assert isinstance(found, Chunk)
        assert found.data == data


def test_other_messages_are_what_they_were() -> None:
    order = peer_pb2.ComputePartsRequest(part=peer_pb2.PartOrder(model=3, outputs=["y"]))
    refusal = peer_pb2.ComputePartsResponse(refusal=peer_pb2.PartRefusal(reason=peer_pb2.PART_REFUSAL_REASON_BUSY))
    assert read_request(write_request(order)) == order
    assert read_response(write_response(refusal)) == refusal


@pytest.mark.parametrize("data", [b"\x1a", b"\x1a\x80", b"\x1a\x80\x80\x80\x80\x80\x80", b"\x1a\x05abc", b"\x0a\xff"])
def test_what_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_request(data)


def test_pieces_are_all_of_the_bytes_in_order() -> None:
    data = content(2 * CHUNK_BYTES + 5)
    pieces = [bytes(chunk.data) for chunk in chunks(memoryview(data))]
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES, CHUNK_BYTES, 5]
    assert b"".join(pieces) == data
