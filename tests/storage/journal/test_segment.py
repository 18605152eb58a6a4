"""Segments: what was appended is read; what an interrupted write leaves is cut; what is damaged is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.toy import mutation

from backwire_api.v1 import storage_pb2
from backwire_api.wire_scan import varint
from backwire_server.sessions.errors import SessionQuarantined, StorageFailed
from backwire_server.storage.journal import segment
from backwire_server.storage.journal.mutations import encode_mutation
from backwire_server.storage.journal.segment import Segment, file_name, first_number, framed
from backwire_server.storage.journal.segment_scan import bodies, is_empty, scan

RECORDS = [b"".join(map(bytes, encode_mutation(number, mutation(number)))) for number in (1, 2, 3)]


def write(directory: Path, records: Sequence[bytes], first: int = 1) -> Path:
    """A segment of these records in a directory."""
    path = directory / file_name(first)
    made = Segment(path, 0)
    made.begin(storage_pb2.JournalHeader(format=1, session_id="a", first_number=first))
    for record in records:
        made.append(framed([record]))
    made.close()
    return path


def read(path: Path, *, last: bool = True) -> list[bytes]:
    return list(bodies(path, scan(path, last=last).spans))


def replace(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def starts(path: Path) -> list[int]:
    """Where records begin, frames included, and where the last ends."""
    found = scan(path, last=False)
    return [begin - 8 for begin, _ in found.spans] + [found.end]


@given(st.integers(1, 2**62))
def test_the_name_of_a_segment_tells_its_first_record(first: int) -> None:
    assert first_number(file_name(first)) == first
    assert first_number(file_name(first) + ".tmp") is None


@pytest.mark.parametrize("name", ["journal-1.log", "journal-.log", "manifest.json", "journal-0000000000000000000x.log"])
def test_other_names_are_no_segments(name: str) -> None:
    assert first_number(name) is None


@given(records=st.lists(st.binary(max_size=40), max_size=5), first=st.integers(1, 2**40))
def test_records_are_read_as_they_were_appended(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], first: int
) -> None:
    path = write(tmp_path_factory.mktemp("segment"), records, first)
    assert read(path) == read(path, last=False) == records
    header = scan(path, last=False).header
    assert header is not None
    assert header.first_number == first
    assert is_empty(path) == (not records)


def test_pieces_of_a_record_are_written_one_after_another_however_many(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    made = Segment(path, scan(path, last=True).end)
    made.append(framed([bytes([number % 256]) * (number % 3) for number in range(3000)]))
    made.close()
    assert read(path) == [b"".join(bytes([number % 256]) * (number % 3) for number in range(3000))]


def test_a_record_that_four_bytes_cannot_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MOST_BYTES", 10)
    assert len(framed([bytes(10)])) == 2
    with pytest.raises(StorageFailed, match="divide it"):
        framed([bytes(11)])


def test_the_last_record_is_cut_wherever_its_writing_was_interrupted(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS)
    whole, (*_, begin, end) = path.read_bytes(), starts(path)
    for size in range(begin, end):
        replace(path, whole[:size])
        found = scan(path, last=True)
        assert list(bodies(path, found.spans)) == RECORDS[:2]
        assert (found.end, found.torn) == (begin, size - begin)


def test_a_header_is_cut_wherever_its_writing_was_interrupted(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    whole = path.read_bytes()
    for size in range(len(whole)):
        replace(path, whole[:size])
        found = scan(path, last=True)
        assert (found.header, found.end, found.torn) == (None, 0, size)


@pytest.mark.parametrize("zeros", [1, 7, 8, 9, 5000])
def test_zeros_where_a_record_should_be_are_cut(tmp_path: Path, zeros: int) -> None:
    path = write(tmp_path, RECORDS)
    whole, (*_, begin, end) = path.read_bytes(), starts(path)
    for size in (begin + 12, end):
        replace(path, whole[:size] + bytes(zeros))
        assert read(path) == RECORDS[: 3 if size == end else 2]
    replace(path, bytes(zeros))
    assert scan(path, last=True).header is None


def test_anything_else_behind_a_damaged_record_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS)
    replace(path, path.read_bytes() + bytes(20) + b"\x01")
    with pytest.raises(SessionQuarantined, match="others follow"):
        scan(path, last=True)


def test_a_flipped_bit_before_the_last_record_is_refused_whichever_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS)
    whole, (*_, begin, _) = path.read_bytes(), starts(path)
    for position in range(8 * begin):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        replace(path, bytes(damaged))
        with pytest.raises(SessionQuarantined, match=r"journal-0+1\.log, byte [0-9]+: .*backwire verify"):
            scan(path, last=True)


def test_a_flipped_bit_in_the_last_record_never_gives_another_record(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS)
    whole, (*_, begin, end) = path.read_bytes(), starts(path)
    for position in range(8 * begin, 8 * end):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        replace(path, bytes(damaged))
        try:
            assert read(path) == RECORDS[:2]
        except SessionQuarantined:
            assert position < 8 * (begin + 4), "only when its length is wrong something seems to follow"


@pytest.mark.parametrize("size", [-1, -30])
def test_a_segment_that_others_follow_must_be_whole(tmp_path: Path, size: int) -> None:
    path = write(tmp_path, RECORDS)
    replace(path, path.read_bytes()[:size])
    with pytest.raises(SessionQuarantined, match="other segments follow"):
        scan(path, last=False)


def test_what_only_looks_like_the_next_record_does_not_make_a_torn_one_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, [*RECORDS, bytes(20) + b"\x08" + varint(5) + bytes(100)])
    *_, begin, _ = starts(path)
    replace(path, path.read_bytes()[:-5])
    assert scan(path, last=True).end == begin


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (storage_pb2.JournalHeader(format=2, session_id="a", first_number=1), "format 2"),
        (storage_pb2.JournalHeader(format=1, session_id="a", first_number=2), "record 2"),
    ],
)
def test_a_header_that_is_not_of_this_segment_is_refused(
    tmp_path: Path, header: storage_pb2.JournalHeader, what: str
) -> None:
    made = Segment(tmp_path / file_name(1), 0)
    made.begin(header)
    made.close()
    with pytest.raises(SessionQuarantined, match=what):
        scan(tmp_path / file_name(1), last=True)


def test_a_header_that_is_no_message_is_refused(tmp_path: Path) -> None:
    path = tmp_path / file_name(1)
    replace(path, segment.MAGIC + b"".join(map(bytes, framed([b"\xff"]))))
    with pytest.raises(SessionQuarantined, match="cannot be read"):
        scan(path, last=True)


def test_opening_a_segment_cuts_what_does_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS)
    *_, begin, _ = starts(path)
    made = Segment(path, begin)
    made.append(framed([b"other"]))
    made.close()
    assert read(path) == [*RECORDS[:2], b"other"]
