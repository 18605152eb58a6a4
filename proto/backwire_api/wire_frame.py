"""Writes tensors as protobuf would, without copying them: the bytes before the elements, then the elements.

Elements of large tensors begin at a multiple of ALIGNMENT from the start of the message, since a reader that takes them
in place wants them aligned. The gap is filled by drawing out the number of the dtype: as an enum may be negative, every
parser takes up to ten bytes for it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from backwire_api.tensors import Bytes, RawTensor
from backwire_api.wire_scan import varint

ALIGNMENT = 8  # the largest item size
ALIGNED_FROM = 1 << 10  # bytes; smaller ones are copied by the reader sooner than noticed


def map_parts(tag: int, tensors: Mapping[str, RawTensor], position: int) -> list[Bytes]:
    """Returns the entries of a map of tensors, whose serialised form begins at `position` of the message."""
    parts: list[Bytes] = []
    for name, (dtype, shape, data) in tensors.items():
        size = len(data)
        misplaced = position % ALIGNMENT if size >= ALIGNED_FROM else -1
        head = _entry_head(tag, name, dtype, shape, size, misplaced)
        parts += head, data
        position += len(head) + size
    return parts


def chunk_parts(tag: int, head: bytes, data: Bytes) -> list[Bytes]:
    """Returns a TensorChunk as a field of a message: `head` is its serialised form without data."""
    before = head + b"\x2a" + varint(len(data)) if len(data) else head
    return [bytes((tag,)) + varint(len(before) + len(data)) + before, data]


def size_of(parts: Iterable[Bytes]) -> int:
    """Returns the bytes of the parts together."""
    return sum(map(len, parts))


@lru_cache(maxsize=1_024)
def _entry_head(tag: int, name: str, dtype: int, shape: tuple[int, ...], size: int, misplaced: int) -> bytes:
    """Returns all of a map entry before the elements; `misplaced` is its own place modulo ALIGNMENT, or negative."""
    head = _drawn_out(tag, name, dtype, shape, size, 0)
    if misplaced < 0:
        return head
    heads = (head, *(_drawn_out(tag, name, dtype, shape, size, gap) for gap in range(1, ALIGNMENT)))
    return next((each for each in heads if (misplaced + len(each)) % ALIGNMENT == 0), head)


def _drawn_out(tag: int, name: str, dtype: int, shape: tuple[int, ...], size: int, gap: int) -> bytes:
    key = name.encode()
    sizes = b"".join(map(varint, shape))
    tensor = b"\x08" + varint(dtype, 1 + gap) + (b"\x12" + varint(len(sizes)) + sizes if shape else b"")
    if size:
        tensor += b"\x1a" + varint(size)
    entry = b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(tensor) + size) + tensor
    return bytes((tag,)) + varint(len(entry) + size) + entry
