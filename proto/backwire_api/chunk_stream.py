"""Puts the tensors of a Pipeline stream together, whose chunks come between other messages."""

import numpy as np

from backwire_api.checksum import crc32
from backwire_api.tensors import Array, Bytes, TensorError, byte_count, check_elements, dtype_of
from backwire_api.v1 import tensor_pb2

OVERHEAD_BYTES = 256  # what a tensor costs besides its elements, so that many without any count, too


class Assembler:
    """Puts the chunks of tensors together, in memory that is taken once for each.

    What the first chunk of a tensor announces is checked against `max_bytes` before memory is taken; the system hands
    it out as it is filled.

    Attributes:
        checksums: The CRC-32 of each tensor that is complete, by name.
    """

    def __init__(self, max_bytes: int) -> None:
        self.checksums: dict[str, int] = {}
        self._max_bytes = max_bytes
        self._announced = 0
        self._arrays: dict[str, Array] = {}
        self._head: tensor_pb2.TensorChunk | None = None
        self._array: Array = np.empty(0, np.uint8)
        self._filled = 0
        self._crc = 0

    def add(self, chunk: tensor_pb2.TensorChunk, data: Bytes) -> None:
        """Takes the next chunk.

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
        part = np.frombuffer(data, np.uint8)
        self._array[self._filled : end] = part
        self._crc = crc32(part.data, self._crc)
        self._filled = end
        if end == expected:
            self._end(head, chunk)

    def finish(self) -> dict[str, Array]:
        """Returns the arrays by name, which own their memory; raises TensorError when the last is not complete."""
        if self._head is not None:
            raise self._cut_short()
        return self._arrays

    def _begin(self, chunk: tensor_pb2.TensorChunk) -> None:
        if chunk.name in self._arrays:
            raise TensorError(f"tensor {chunk.name!r} comes twice; send it once")
        nbytes = byte_count(dtype_of(chunk.dtype), chunk.shape)
        self._announced += nbytes + OVERHEAD_BYTES
        if self._announced > self._max_bytes:
            raise TensorError(f"the tensors exceed {self._max_bytes:,} bytes at {chunk.name!r}; send less at a time")
        self._array = np.empty(nbytes, np.uint8)
        self._head, self._filled, self._crc = chunk, 0, 0

    def _end(self, head: tensor_pb2.TensorChunk, last: tensor_pb2.TensorChunk) -> None:
        if not last.HasField("crc32") or last.crc32 != self._crc:
            raise TensorError(f"tensor {head.name!r} arrived with a wrong or missing checksum; send it again")
        value = self._array.view(dtype_of(head.dtype)).reshape(tuple(head.shape))
        self._arrays[head.name] = check_elements(value)
        self.checksums[head.name] = self._crc
        self._head = None

    def _cut_short(self) -> TensorError:
        assert self._head is not None
        name, expected = self._head.name, self._array.nbytes
        return TensorError(f"tensor {name!r} is cut short at byte {self._filled} of {expected}; send all chunks")
