"""Files of tensors are what the safetensors library reads, and whatever is none is refused before memory is taken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.drawing import arrays, damaged, joined, texts, told

from backwire_api.tensors import Array
from backwire_server.sessions.errors import StorageFailed
from backwire_server.storage.checkpoints.tensorfile import METADATA, TensorFile, raw_bytes, tensor_parts
from backwire_server.storage.damage import Damaged

ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


def read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    with TensorFile(path) as file:
        return file.metadata, {name: file.read(name) for name in file.places}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "file"


@given(values=st.dictionaries(texts, arrays(), max_size=5), metadata=st.dictionaries(texts, texts, max_size=3))
def test_tensors_come_back_with_the_same_bits_and_order(
    path: Path, values: dict[str, Array], metadata: dict[str, str]
) -> None:
    path.write_bytes(joined(tensor_parts(values, metadata)))
    found_metadata, found = read(path)
    assert found_metadata == metadata
    assert told(found) == told(values)
    assert all(array.flags.owndata and array.flags.c_contiguous for array in found.values() if array.ndim)
    assert not any(array.flags.writeable for array in found.values())


@given(values=st.dictionaries(texts, arrays(), max_size=5), metadata=st.dictionaries(texts, texts, max_size=3))
def test_the_public_library_reads_the_same(values: dict[str, Array], metadata: dict[str, str]) -> None:
    data = joined(tensor_parts(values, metadata))
    deserialize: Any = safetensors.deserialize
    found = dict(deserialize(data))
    assert {name: (each["shape"], bytes(each["data"])) for name, each in found.items()} == {
        name: (list(array.shape), told(array)[2]) for name, array in values.items()
    }


def test_the_public_library_opens_a_file_with_its_metadata(tmp_path: Path) -> None:
    values = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 4), np.int16)}
    (tmp_path / "file").write_bytes(joined(tensor_parts(values, {"step": "3"})))
    assert told(dict(sorted(safetensors.numpy.load_file(tmp_path / "file").items()))) == told(values)
    with safetensors.safe_open(tmp_path / "file", "np") as file:
        assert file.metadata() == {"step": "3"}


def test_what_the_public_library_writes_is_read(tmp_path: Path) -> None:
    values = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 4), np.int16)}
    safetensors.numpy.save_file(values, tmp_path / "with", {"by": "library"})
    safetensors.numpy.save_file(values, tmp_path / "without")
    for name, metadata in (("with", {"by": "library"}), ("without", {})):
        found = read(tmp_path / name)
        assert (found[0], told(found[1], ordered=False)) == (metadata, told(values))


def test_arrays_are_written_from_where_they_lie_at_aligned_places() -> None:
    values = {"a": np.arange(3, dtype=np.uint8), "b": np.arange(5.0), "c": np.arange(3, dtype=np.float16)}
    head, *parts = tensor_parts(values, {})
    assert [np.shares_memory(part, values[name]) for part, name in zip(parts, "bca", strict=True)] == [True] * 3
    place = len(head)
    for part, name in zip(parts, "bca", strict=True):
        assert place % values[name].itemsize == 0
        place += len(part)


def test_a_file_that_is_cut_anywhere_is_refused_and_one_with_other_bits_never_fails_otherwise(tmp_path: Path) -> None:
    values = {"w": np.arange(4, dtype=np.float32), "b": np.array([True, False])}
    (tmp_path / "file").write_bytes(joined(tensor_parts(values, {"key": "text"})))
    for what in damaged(tmp_path / "file"):
        if what.startswith("cut"):
            with pytest.raises(Damaged):
                read(tmp_path / "file")
        else:
            try_to_read(tmp_path / "file")


def try_to_read(path: Path) -> None:
    """Reads a file whose bits may say something else by now, which nothing here can tell; or it is refused."""
    try:
        _, found = read(path)
    except Damaged:
        return
    assert sum(array.nbytes for array in found.values()) <= path.stat().st_size


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "its header"),
        (b"[]", "no JSON object"),
        (b"{", "its header"),
        (b"\xff", "its header"),
        (b"[" * 100_000, "its header"),
        (b'{"a":1,"a":1}', "comes twice"),
        (b'{"\\ud800":1}', "its header"),
        ({METADATA: []}, "no texts"),
        ({METADATA: {"a": 1}}, "no texts"),
        ({"a": 1}, "no dtype"),
        ({"a": {**ENTRY, "more": 1}}, "no dtype"),
        ({"a": {**ENTRY, "dtype": "C64"}}, "no dtype"),
        ({"a": {**ENTRY, "dtype": ["U8"]}}, "no dtype"),
        ({"a": {**ENTRY, "shape": [True, 2]}}, "no dtype"),
        ({"a": {**ENTRY, "shape": [2.0]}}, "no dtype"),
        ({"a": {**ENTRY, "shape": [-2]}}, "negative dimension"),
        ({"a": {**ENTRY, "shape": [1] * 33 + [2]}}, "too deep"),
        ({"a": {**ENTRY, "shape": [0, 2**63]}}, "too large"),
        ({"a": {**ENTRY, "shape": [10**4_000]}}, "too large"),
        ({"a": {**ENTRY, "shape": [2**40], "data_offsets": [0, 2**40]}}, "but 2 follow"),
        ({"a": {**ENTRY, "shape": [3]}}, "3 bytes by its shape"),
        ({"a": {**ENTRY, "data_offsets": [0, 2, 4]}}, "no dtype"),
        ({"a": {**ENTRY, "data_offsets": [1, 3]}}, "gap or overlap"),
        ({"a": {**ENTRY, "data_offsets": [-1, 1]}}, "gap or overlap"),
        ({"a": ENTRY, "b": ENTRY}, "gap or overlap"),
        ({"a": {**ENTRY, "shape": [1], "data_offsets": [0, 1]}}, "but 2 follow"),
        ({}, "but 2 follow"),
        ({"a": {**ENTRY, "dtype": "BOOL"}}, "neither 0 nor 1"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, header: Any, reason: str) -> None:
    with pytest.raises(Damaged, match=reason):
        read(write(tmp_path / "file", header, b"\x02\x03"))


@pytest.mark.parametrize("length", [2**64 - 1, 2**62, 100_000_001, 3])
def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(Damaged, match=f"{length:,} as the length"):
        read(tmp_path / "file")


def test_a_header_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    values = {"w" * 100: np.zeros(2)}
    head = next(tensor_parts(values, {}))
    limit = len(head) - 8
    (tmp_path / "file").write_bytes(joined(tensor_parts(values, {}, max_header_bytes=limit)))
    TensorFile(tmp_path / "file", max_header_bytes=limit).close()
    with pytest.raises(Damaged, match="length of a header"):
        TensorFile(tmp_path / "file", max_header_bytes=limit - 1)
    with pytest.raises(StorageFailed, match="shorter names"):
        next(tensor_parts(values, {}, max_header_bytes=limit - 1))


def test_raw_bytes_are_those_of_the_little_endian_array() -> None:
    assert bytes(raw_bytes(np.array([1, 2], ">u2"))) == b"\x01\x00\x02\x00"
    assert bytes(raw_bytes(np.arange(4, dtype=np.uint8).reshape(2, 2).T)) == b"\x00\x02\x01\x03"
