"""Files of named tensors in the safetensors format: written without copies, read without trust.

A file is the length of the header as 8 bytes, little-endian; the header, a JSON object that tells dtype, shape and
place of each tensor and has texts under `__metadata__`; and the tensors' bytes without gaps. This reader keeps the
order of the names, which a digest of what they name goes by; the safetensors library sorts them.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from backwire_api.tensors import Array, Bytes, TensorError, byte_count, check_elements, little_endian
from backwire_server.sessions.errors import StorageFailed
from backwire_server.storage.damage import Damaged

MAX_HEADER_BYTES = 100_000_000
"""The most bytes of a header: the safetensors library reads no larger one."""

METADATA = "__metadata__"
"""The name that no tensor can have."""

_LENGTH_BYTES = _ALIGNMENT = 8
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Place(NamedTuple):
    """What a tensor is, and where its bytes begin after the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor; raises TensorError for a shape that no tensor can have."""
        return byte_count(self.dtype, self.shape)


def tensor_parts(
    arrays: Mapping[str, Array], metadata: Mapping[str, str], *, max_header_bytes: int = MAX_HEADER_BYTES
) -> Iterator[Bytes]:
    """Yields a file of these tensors in pieces: the header, then views of the arrays' memory.

    The header has the tensors in the order given, the file those of larger elements first, so that all are aligned.
    Raises StorageFailed when the header would be larger than it may be.
    """
    little = {name: little_endian(array) for name, array in arrays.items()}
    by_size = sorted(little, key=lambda name: -little[name].itemsize)
    header = _header(little, by_size, metadata)
    if len(header) > max_header_bytes:
        raise StorageFailed(
            f"a file with {len(arrays):,} tensors would have a header of {len(header):,} bytes, but it may have "
            f"{max_header_bytes:,}; use fewer parameters or shorter names, and keep fewer passes open"
        )
    yield len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for name in by_size:
        yield raw_bytes(little[name])


def raw_bytes(array: Array) -> Bytes:
    """Returns the elements in C order, little-endian; as a view where they lie so."""
    return little_endian(array).reshape(-1).view(np.uint8)


class TensorFile:
    """A file of tensors that is open for reading; a context that closes it.

    Attributes:
        metadata: The texts in it by name.
        places: What each tensor is and where, in the order of the header.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_header_bytes: int = MAX_HEADER_BYTES) -> None:
        """Reads the header and checks that it fits the file; raises Damaged, and OSError when it cannot be read."""
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        try:
            size = os.fstat(self._file.fileno()).st_size
            header = self._read_header(size, max_header_bytes)
            self.metadata = _metadata(header.pop(METADATA, {}))
            self.places = {name: _place(name, entry) for name, entry in header.items()}
            _check_gaps(self.places, size - self._start)
        except BaseException:
            self._file.close()
            raise

    def read(self, name: str) -> Array:
        """Returns a tensor in memory of its own, not to be written to; raises Damaged, and OSError."""
        place = self.places[name]
        array: Array = np.empty(place.shape, place.dtype)
        self._file.seek(self._start + place.begin)
        if self._file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise Damaged(f"it ended within tensor {name!r}")
        array.flags.writeable = False
        try:
            return check_elements(array)
        except TensorError as error:
            raise Damaged(f"tensor {name!r}: {error}") from None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_header(self, size: int, most: int) -> dict[str, Any]:
        length = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
        self._start = _LENGTH_BYTES + length
        if size < self._start or length > most:
            raise Damaged(
                f"its {size:,} bytes begin with {length:,} as the length of a header, which may have {most:,} and lies "
                "within the file"
            )
        return _parsed(self._file.read(length))


def _header(arrays: Mapping[str, Array], by_size: Sequence[str], metadata: Mapping[str, str]) -> bytes:
    ends: dict[str, tuple[int, int]] = {}
    end = 0
    for name in by_size:
        ends[name] = end, end + arrays[name].nbytes
        end += arrays[name].nbytes
    entries: dict[str, Any] = {METADATA: dict(metadata)}
    for name, array in arrays.items():
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": ends[name]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its header is not what a file of tensors has: {error}") from None
    if not isinstance(header, dict):
        raise Damaged("its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damaged("a name comes twice")
    for name, value in pairs:
        name.encode()  # raises ValueError for what JSON can escape but no text has
        if isinstance(value, str):
            value.encode()
    return found


def _metadata(found: Any) -> dict[str, str]:
    if not (isinstance(found, dict) and all(isinstance(text, str) for text in found.values())):
        raise Damaged("its metadata are no texts")
    return found


def _place(name: str, entry: Any) -> Place:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest} if (
            not rest and dtype in _DTYPES and all(type(number) is int for number in (begin, end, *shape))
        ):
            place = Place(_DTYPES[dtype], tuple(shape), begin)
        case _:
            raise Damaged(f"its header has no dtype, shape and place for tensor {name!r}")
    try:
        nbytes = place.nbytes
    except TensorError as error:
        raise Damaged(f"tensor {name!r}: {error}") from None
    if end - begin != nbytes:
        raise Damaged(f"tensor {name!r} has {nbytes:,} bytes by its shape, but {end - begin:,} by its place")
    return place


def _check_gaps(places: Mapping[str, Place], size: int) -> None:
    end = 0
    for place in sorted(places.values(), key=lambda each: (each.begin, each.nbytes)):
        if place.begin != end:
            raise Damaged(f"its tensors leave a gap or overlap at byte {min(place.begin, end):,} after the header")
        end += place.nbytes
    if end != size:
        raise Damaged(f"its tensors have {end:,} bytes, but {size:,} follow the header")
