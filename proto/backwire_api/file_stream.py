"""Takes a file apart into chunks, and puts it together again: so a whole session travels, whatever its size."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from backwire_api.checksum import crc32
from backwire_api.v1 import gradient_service_pb2 as pb

CHUNK_BYTES = 1 << 20


class FileStreamError(ValueError):
    """The chunks do not make a file: some are missing, or damaged on their way."""


def encode_file(pieces: Iterable[bytes | memoryview]) -> Iterator[pb.FileChunk]:
    """Yields the file that the pieces make as chunks of at most CHUNK_BYTES, at least one, the last marked as such."""
    offset = checksum = 0
    chunk = pb.FileChunk()
    for part in _parts(pieces):
        if offset:
            yield chunk
        chunk = pb.FileChunk(offset=offset, data=part)
        checksum = crc32(part, checksum)
        offset += len(part)
    chunk.last, chunk.total_bytes, chunk.crc32 = True, offset, checksum
    yield chunk


def decode_file(chunks: Iterable[pb.FileChunk], file: BinaryIO, max_bytes: int | None = None) -> pb.FileChunk:
    """Writes the file that the chunks make, and returns the last chunk without its data: size and checksum.

    Raises FileStreamError when a chunk does not follow the one before, the stream ends without one that is marked as
    the last, goes on behind it, or holds more than `max_bytes`, or when size or checksum differ.
    """
    offset = checksum = 0
    last: pb.FileChunk | None = None
    for chunk in chunks:
        if last is not None:
            raise FileStreamError("a chunk follows the one marked as the last; mark only the final one")
        if chunk.offset != offset:
            raise FileStreamError(f"a chunk begins at byte {chunk.offset:,} where {offset:,} should follow; send all")
        data = chunk.data
        offset += len(data)
        if max_bytes is not None and offset > max_bytes:
            raise FileStreamError(f"the file has more than {max_bytes:,} bytes, which is the limit; send a smaller one")
        checksum = crc32(data, checksum)
        file.write(data)
        if chunk.last:
            last = pb.FileChunk(last=True, total_bytes=chunk.total_bytes, crc32=chunk.crc32)
    if last is None:
        raise FileStreamError(f"the stream broke off after {offset:,} bytes, without a last chunk; send the file whole")
    if (last.total_bytes, last.crc32) != (offset, checksum):
        raise FileStreamError(
            f"the file was damaged on its way: {offset:,} bytes with CRC-32 {checksum:08x} came, not "
            f"{last.total_bytes:,} with {last.crc32:08x}; send it again"
        )
    return last


def _parts(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yields the same bytes in parts of CHUNK_BYTES, but for the last, and none empty."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            held += view[start : start + CHUNK_BYTES]
            if len(held) >= CHUNK_BYTES:
                yield bytes(memoryview(held)[:CHUNK_BYTES])
                del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)
