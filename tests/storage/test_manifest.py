"""Manifests: read as they were written, and refused when they are not."""

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwire_server.sessions.errors import SessionQuarantined
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.requests import RequestKey
from backwire_server.storage.manifest import MANIFEST, Manifest, Stored, decode, read_manifest

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
counts = st.integers(0, 2**63 - 1)
times = st.floats(0, 1e11)
stored = st.builds(Stored, texts, texts, counts, counts, counts, st.booleans(), texts, texts, times, counts)
manifests = st.builds(
    Manifest,
    texts,
    times,
    st.sampled_from(Durability),
    st.none() | st.builds(RequestKey, texts, st.binary(max_size=32)),
    texts,
    st.lists(stored, max_size=4).map(tuple),
    st.lists(texts, max_size=2).map(tuple),
    begun=counts,
    boot=texts,
)
SOME = Manifest(
    "a",
    1e9,
    Durability.FSYNC,
    RequestKey("r", b"\x01"),
    "ab",
    (
        Stored("checkpoint-1", "", 1, 1, 0, True, "d", "e", 1e9, 10),
        Stored("saved-best", "best", 1, 1, 0, True, "d", "e", 1e9, 10),
    ),
)


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert decode(manifest.encode()) == manifest


def test_one_that_was_written_before_sessions_told_their_boot_is_read() -> None:
    content = json.loads(replace(SOME, begun=7, boot="some").encode())
    for name in ("begun", "boot", "sha256"):
        del content[name]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    assert decode(json.dumps(content).encode()) == SOME


def test_checkpoints_are_told_apart_by_their_names() -> None:
    assert [each.file for each in SOME.automatic] == ["checkpoint-1"]
    assert [each.file for each in SOME.named] == ["saved-best"]
    assert SOME.find("best") == SOME.named[0]
    assert SOME.find("") is SOME.find("worst") is None
    assert SOME.named[0].info.size == 10


def test_any_change_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    data, refused = SOME.encode(), 0
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        (directory / MANIFEST).write_bytes(flipped)
        with suppress(SessionQuarantined):
            assert read_manifest(directory) == SOME, "a change of white space"
            continue
        refused += 1
    assert refused > len(data) * 0.7


@pytest.mark.parametrize("size", [0, 1, 100, -3])
def test_part_of_a_manifest_is_refused(tmp_path: Path, size: int) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    (directory / MANIFEST).write_bytes(SOME.encode()[:size])
    with pytest.raises(SessionQuarantined, match="not what was written"):
        read_manifest(directory)


@pytest.mark.parametrize("content", ["[]", "3", '{"format": 1}', '{"sha256": 1}'])
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    (directory / MANIFEST).write_text(content)
    with pytest.raises(SessionQuarantined, match="not what was written"):
        read_manifest(directory)


def test_a_manifest_of_another_version_or_session_or_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "b"
    directory.mkdir()
    with pytest.raises(SessionQuarantined, match="missing"):
        read_manifest(directory)
    (directory / MANIFEST).write_bytes(SOME.encode())
    with pytest.raises(SessionQuarantined, match="another session, 'a'"):
        read_manifest(directory)
    with monkeypatch.context() as patch:
        patch.setattr("backwire_server.storage.manifest.FORMAT", 2)
        (directory / MANIFEST).write_bytes(replace(SOME, session_id="b").encode())
    with pytest.raises(SessionQuarantined, match="format 2"):
        read_manifest(directory)


def test_what_is_summed_up_is_the_rest_as_json_with_sorted_keys_and_no_spaces() -> None:
    content = json.loads(SOME.encode())
    told = content.pop("sha256")
    assert told == hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
