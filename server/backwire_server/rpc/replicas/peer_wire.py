"""The messages of PeerService as they are sent: chunks by hand, the same bytes with fewer copies of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from backwire_api.v1 import peer_pb2
from backwire_api.wire_scan import varint

CHUNK_BYTES = 1 << 20
"""The most bytes in a chunk."""

_MOST_HEAD = 6  # of a chunk: its tag, and the length of what is no longer than a message may be


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes, as a message of either direction."""

    data: memoryview


Request = peer_pb2.ComputePartsRequest | Chunk
Response = peer_pb2.ComputePartsResponse | Chunk
Requests = Iterator[Request]
Responses = Iterator[Response]

_REQUEST_TAG, _RESPONSE_TAG = (
    bytes((kind.DESCRIPTOR.fields_by_name["chunk"].number << 3 | 2,))
    for kind in (peer_pb2.ComputePartsRequest, peer_pb2.ComputePartsResponse)
)


def chunks(data: memoryview) -> Iterator[Chunk]:
    """Yields bytes in pieces that fit into messages."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield Chunk(data[start : start + CHUNK_BYTES])


def write_request(message: Request) -> bytes:
    """Returns the message as it is sent."""
    return _framed(_REQUEST_TAG, message) if isinstance(message, Chunk) else message.SerializeToString()


def write_response(message: Response) -> bytes:
    """Returns the message as it is sent."""
    return _framed(_RESPONSE_TAG, message) if isinstance(message, Chunk) else message.SerializeToString()


def read_request(data: bytes) -> Request:
    """Returns the message that was sent; raises DecodeError."""
    found = _chunk_in(_REQUEST_TAG, data)
    if found is not None:
        return found
    message = peer_pb2.ComputePartsRequest.FromString(data)
    return Chunk(memoryview(message.chunk)) if message.HasField("chunk") else message


def read_response(data: bytes) -> Response:
    """Returns the message that was sent; raises DecodeError."""
    found = _chunk_in(_RESPONSE_TAG, data)
    if found is not None:
        return found
    message = peer_pb2.ComputePartsResponse.FromString(data)
    return Chunk(memoryview(message.chunk)) if message.HasField("chunk") else message


def _framed(tag: bytes, chunk: Chunk) -> bytes:
    return b"".join((tag, varint(len(chunk.data)), chunk.data))


def _chunk_in(tag: bytes, data: bytes) -> Chunk | None:
    """Returns the chunk that a message is, if it is one and written as here."""
    if not data.startswith(tag):
        return None
    length = shift = 0
    for position in range(1, min(_MOST_HEAD, len(data))):
        byte = data[position]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            whole = length == len(data) - position - 1
            return Chunk(memoryview(data)[position + 1 :]) if whole else None
    return None
