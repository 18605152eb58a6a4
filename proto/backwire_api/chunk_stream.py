"""Takes tensors apart into chunks, and puts them together again: streams have no limit on the size of a tensor."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backwire_api.checksum import crc32
from backwire_api.tensors import Array, Bytes, TensorError, buffer, byte_count, check_elements, dtype_of, encode_raw
from backwire_api.v1 import tensor_pb2

CHUNK_BYTES = 2 << 20  # less costs more CPU time, 4 MiB less of it but not less time (measured)
OVERHEAD_BYTES = 256  # what a tensor costs besides its elements, so that many without any count, too


class RawChunk(NamedTuple):
    """A TensorChunk, and beside it what belongs into its data."""

    head: tensor_pb2.TensorChunk
    data: Bytes


def encode_chunks(name: str, array: ArrayLike) -> Iterator[RawChunk]:
    """Yields the array as chunks of at most CHUNK_BYTES, at least one, the last with the checksum.

    Their bytes are views of the array if it is little-endian and in C order.
    """
    dtype, shape, data = encode_raw(array)
    checksum = 0
    for offset in range(0, max(len(data), 1), CHUNK_BYTES):
        part = data[offset : offset + CHUNK_BYTES]
        checksum = crc32(buffer(part), checksum)
        chunk = tensor_pb2.TensorChunk(name=name, dtype=dtype, shape=shape, offset=offset)
        if offset + len(part) == len(data):
            chunk.crc32 = checksum
        yield RawChunk(chunk, part)


def decode_chunks(
    chunks: Iterable[tuple[tensor_pb2.TensorChunk, Bytes]], max_bytes: int
) -> Iterator[tuple[str, Array]]:
    """Yields (name, array) for each tensor as it is complete; the arrays are writable and own their memory.

    Raises TensorError as Assembler does, and when the last tensor is cut short. A tensor without elements is free.
    """
    assembler = Assembler(max_bytes, overhead=0)
    for chunk, data in chunks:
        if assembler.add(chunk, data):
            yield chunk.name, assembler.arrays[chunk.name]
    assembler.finish()


class Assembler:
    """Puts the chunks of tensors together, in memory that is taken once for each.

    What the first chunk of a tensor announces is checked against `max_bytes` before memory is taken; the system hands
    it out as it is filled.

    Attributes:
        arrays: Each tensor that is complete, by name; they are writable and own their memory.
        checksums: The CRC-32 of each of them.
    """

    def __init__(self, max_bytes: int, *, overhead: int = OVERHEAD_BYTES) -> None:
        self.arrays: dict[str, Array] = {}
        self.checksums: dict[str, int] = {}
        self._max_bytes = max_bytes
        self._overhead = overhead
        self._announced = 0
        self._head: tensor_pb2.TensorChunk | None = None
        self._array: Array = np.empty(0, np.uint8)
        self._filled = 0
        self._crc = 0

    def add(self, chunk: tensor_pb2.TensorChunk, data: Bytes) -> bool:
        """Takes the next chunk, and tells whether that completed its tensor.

        Raises TensorError when it does not continue its tensor, the checksum is wrong, dtype or shape is none, the name
        comes twice, or the tensors exceed `max_bytes`.
        """
        if self._head is None:
            self._begin(chunk)
        head, expected = self._head, self._array.nbytes
        assert head is not None
        if (chunk.name, chunk.dtype, chunk.shape) != (head.name, head.dtype, head.shape):
            raise self._cut_short()
        end = self._filled + len(data)
        if chunk.offset != self._filled or end > expected or not (len(data) or expected == 0):
            raise TensorError(
                f"a chunk of tensor {head.name!r} with {len(data)} bytes at offset {chunk.offset} does not continue "
                f"byte {self._filled} of {expected}; send chunks in order, without gaps or empty ones"
            )
        self._array[self._filled : end] = np.frombuffer(data, np.uint8)
        self._crc = crc32(buffer(data), self._crc)
        self._filled = end
        if end == expected:
            self._end(head, chunk)
        return end == expected

    def finish(self) -> dict[str, Array]:
        """Returns the arrays by name, which own their memory; raises TensorError when the last is not complete."""
        if self._head is not None:
            raise self._cut_short()
        return self.arrays

    def _begin(self, chunk: tensor_pb2.TensorChunk) -> None:
        if chunk.name in self.arrays:
            raise TensorError(f"tensor {chunk.name!r} comes twice; send it once")
        nbytes = byte_count(dtype_of(chunk.dtype), chunk.shape)
        self._announced += nbytes + self._overhead
        if self._announced > self._max_bytes:
            raise TensorError(f"the tensors exceed {self._max_bytes:,} bytes at {chunk.name!r}; send less at a time")
        self._array = np.empty(nbytes, np.uint8)
        self._head, self._filled, self._crc = chunk, 0, 0

    def _end(self, head: tensor_pb2.TensorChunk, last: tensor_pb2.TensorChunk) -> None:
        if not last.HasField("crc32") or last.crc32 != self._crc:
            raise TensorError(f"tensor {head.name!r} arrived with a wrong or missing checksum; send it again")
        value = self._array.view(dtype_of(head.dtype)).reshape(tuple(head.shape))
        self.arrays[head.name] = check_elements(value)
        self.checksums[head.name] = self._crc
        self._head = None

    def _cut_short(self) -> TensorError:
        assert self._head is not None
        name, expected = self._head.name, self._array.nbytes
        return TensorError(f"tensor {name!r} is cut short at byte {self._filled} of {expected}; send all chunks")
